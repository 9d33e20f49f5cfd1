/**
 * Reactive fault tolerance as a pure state machine: a checkpoint every so often, and when a VM or its host dies the
 * set restarted from the last complete one. It knows no clock and does nothing itself; `now` comes with each event,
 * in milliseconds, and what is to be done comes out as effects.
 *
 * What it holds to: one effect at a time and none while somebody else's operation runs; a death is seen more than
 * once before it is believed; no restart before the old VMs are proven dead; at most `maxRestarts` in a row.
 */

export interface ReactiveRules {
  everyMs: number;
  maxRestarts: number;
  backoffMs: number;
}

/** One VM as a look found it. */
export interface Sight {
  vm: string;
  host: string;
  /** Its VMM's process; "unknown": the host does not run a command. */
  process: "alive" | "gone" | "unknown";
  /** The VMM's word, "unknown" when it gives none. */
  status: string;
  agent: boolean;
}

export type ReactivePhase =
  | { name: "watching" }
  | { name: "checkpointing" }
  /** The last complete checkpoint is looked for. */
  | { name: "choosing"; deaths: string[] }
  | { name: "fencing"; checkpoint: string; deaths: string[] }
  | { name: "restarting"; checkpoint: string; deaths: string[] }
  | { name: "waiting"; until: number; deaths: string[] }
  /** A person must act. `whenKnown`: it goes on by itself once every host answers again. */
  | { name: "stuck"; reason: string; whenKnown: boolean };

export interface ReactiveState {
  phase: ReactivePhase;
  /** Somebody else's operation runs. */
  busy: boolean;
  nextCheckpoint: number;
  /** Restarts since the last checkpoint. */
  attempts: number;
  lastRestart: number | undefined;
  /** Checkpoints that failed since the last complete one, and why the last did. */
  failures: { count: number; cause: string; needsOperator: boolean };
  /** VMs that were seen alive once: only these can die. */
  seen: ReadonlySet<string>;
  /** In how many looks in a row a VM was not well, and why in the last. */
  suspects: ReadonlyMap<string, { looks: number; why: string }>;
  /** Hosts that did not answer in the last look. */
  silentHosts: readonly string[];
}

export type ReactiveEvent =
  | { type: "tick"; now: number }
  | { type: "look"; now: number; sights: readonly Sight[] }
  | { type: "busy" }
  | { type: "free"; now: number }
  /** A complete checkpoint, whoever asked for it. */
  | { type: "checkpointed"; now: number }
  | { type: "checkpoint-failed"; now: number; cause: string; needsOperator: boolean }
  /** The last complete checkpoint, if there is one. */
  | { type: "chosen"; now: number; checkpoint: string | undefined }
  | { type: "fenced" }
  /** At a closer look all VMs live. */
  | { type: "alive" }
  /** `silent`: because a host does not answer. */
  | { type: "fence-failed"; now: number; cause: string; silent: boolean }
  | { type: "restarted"; now: number }
  | { type: "restart-failed"; now: number; cause: string; needsOperator: boolean }
  /** An effect could not begin: somebody else was first. */
  | { type: "declined"; now: number };

export type ReactiveEffect =
  | { do: "checkpoint" }
  | { do: "choose" }
  /** Prove the old VMs dead, or kill them; then restart all of the checkpoint, on none of these hosts. */
  | { do: "restart"; checkpoint: string; avoid: readonly string[] };

/** Looks in a row before a process that is gone is believed dead, and a host that is silent. */
export const GONE_LOOKS = 2;
export const SILENT_LOOKS = 3;
/** So many checkpoints that fail in a row are a person's matter. */
const FAILED_CHECKPOINTS = 3;
/** How long to wait when somebody else's operation came first. */
const DECLINED_MS = 5_000;
const MAX_BACKOFF_MS = 3_600_000;
/** The VMM is there and the VM will not run again. */
const deadStatuses: ReadonlySet<string> = new Set(["guest-panicked", "internal-error", "shutdown"]);

/** `kept`: what an earlier process of the server knew. */
export function initialReactive(
  rules: ReactiveRules,
  now: number,
  kept: { attempts: number; seen: readonly string[] } = { attempts: 0, seen: [] },
): ReactiveState {
  return {
    phase: { name: "watching" },
    busy: false,
    nextCheckpoint: now + rules.everyMs,
    attempts: kept.attempts,
    lastRestart: undefined,
    failures: noFailures,
    seen: new Set(kept.seen),
    suspects: new Map(),
    silentHosts: [],
  };
}

export interface ReactiveStep {
  state: ReactiveState;
  effects: ReactiveEffect[];
}

/** One event. Events that do not belong to the phase change nothing. */
export function reduceReactive(
  rules: ReactiveRules,
  state: ReactiveState,
  event: ReactiveEvent,
): ReactiveStep {
  const { phase } = state;
  switch (event.type) {
    case "busy":
      // What is seen of a VM on its way says nothing.
      return stay({ ...state, busy: true, suspects: new Map() });
    case "free":
      return due(rules, { ...state, busy: false, suspects: new Map() }, event.now);
    case "tick":
      return due(rules, state, event.now);
    case "look":
      return look(rules, state, event);
    case "checkpointed": {
      const next = {
        ...state,
        nextCheckpoint: event.now + rules.everyMs,
        attempts: 0,
        failures: noFailures,
      };
      return stay(phase.name === "checkpointing" ? watch(next) : next);
    }
    case "checkpoint-failed":
      if (phase.name !== "checkpointing") return stay(state);
      return stay(
        watch({
          ...state,
          nextCheckpoint: event.now + rules.everyMs,
          failures: {
            count: state.failures.count + 1,
            cause: event.cause,
            needsOperator: state.failures.needsOperator || event.needsOperator,
          },
        }),
      );
    case "chosen":
      return phase.name === "choosing" ? chosen(state, phase.deaths, event.checkpoint) : stay(state);
    case "fenced":
      if (phase.name !== "fencing") return stay(state);
      return stay({ ...state, phase: { ...phase, name: "restarting" }, attempts: state.attempts + 1 });
    case "alive":
      return stay(phase.name === "fencing" ? watch(state) : state);
    case "fence-failed": {
      if (phase.name !== "fencing") return stay(state);
      const reason = `${phase.deaths.join("; ")}; the old VMs may still run: ${event.cause}`;
      return stay(stick(state, reason, event.silent));
    }
    case "restarted":
      if (phase.name !== "restarting") return stay(state);
      return stay(watch({ ...state, lastRestart: event.now, nextCheckpoint: event.now + rules.everyMs }));
    case "restart-failed":
      if (phase.name !== "restarting") return stay(state);
      return restartFailed(rules, { ...state, lastRestart: event.now }, phase.deaths, event);
    case "declined":
      return declined(state, event.now);
  }
}

const noFailures = { count: 0, cause: "", needsOperator: false };

/** The policy goes on, but a person must see why there are no new checkpoints. */
export function lacksCheckpoints({ failures }: ReactiveState): boolean {
  return failures.needsOperator || failures.count >= FAILED_CHECKPOINTS;
}

const stay = (state: ReactiveState): ReactiveStep => ({ state, effects: [] });
const watch = (state: ReactiveState): ReactiveState => ({
  ...state,
  phase: { name: "watching" },
  suspects: new Map(),
});
const stick = (state: ReactiveState, reason: string, whenKnown = false): ReactiveState => ({
  ...state,
  phase: { name: "stuck", reason, whenKnown },
});

/** What time makes due: the end of a wait, a checkpoint. */
function due(rules: ReactiveRules, state: ReactiveState, now: number): ReactiveStep {
  const { phase } = state;
  if (state.busy) return stay(state);
  if (phase.name === "waiting" && now >= phase.until)
    return {
      state: { ...state, phase: { name: "choosing", deaths: phase.deaths } },
      effects: [{ do: "choose" }],
    };
  const isDue = phase.name === "watching" && state.suspects.size === 0 && now >= state.nextCheckpoint;
  if (!isDue) return stay(state);
  return { state: { ...state, phase: { name: "checkpointing" } }, effects: [{ do: "checkpoint" }] };
}

function look(
  rules: ReactiveRules,
  state: ReactiveState,
  { now, sights }: Extract<ReactiveEvent, { type: "look" }>,
): ReactiveStep {
  const { phase } = state;
  if (state.busy || (phase.name !== "watching" && phase.name !== "stuck")) return stay(state);
  const seen = new Set(state.seen);
  const suspects = new Map<string, { looks: number; why: string }>();
  const deaths: string[] = [];
  for (const sight of sights) {
    const trouble = troubleOf(sight);
    if (trouble === undefined) {
      if (sight.process === "alive") seen.add(sight.vm);
      continue;
    }
    if (!seen.has(sight.vm)) continue;
    const looks = (state.suspects.get(sight.vm)?.looks ?? 0) + 1;
    suspects.set(sight.vm, { looks, why: trouble.why });
    if (looks >= trouble.needs) deaths.push(trouble.why);
  }
  const silentHosts = [...new Set(sights.filter((s) => s.process === "unknown").map((s) => s.host))];
  const next = { ...state, seen, suspects, silentHosts };
  // A person has put it right.
  if (phase.name === "stuck" && suspects.size === 0) return due(rules, watch({ ...next, attempts: 0 }), now);
  if (phase.name === "stuck" && !(phase.whenKnown && silentHosts.length === 0)) return stay(next);
  if (deaths.length === 0) return stay(next);
  return died(rules, next, deaths, now);
}

/** What is wrong with a VM, and how often it must be seen; undefined when it lives. A silent agent alone is no death. */
function troubleOf({ vm, host, process, status }: Sight): { why: string; needs: number } | undefined {
  if (process === "gone") return { why: `the process of ${vm} on ${host} is gone`, needs: GONE_LOOKS };
  if (process === "unknown") return { why: `host ${host} of ${vm} does not answer`, needs: SILENT_LOOKS };
  if (deadStatuses.has(status)) return { why: `${vm} on ${host} is in state "${status}"`, needs: GONE_LOOKS };
  return undefined;
}

function died(rules: ReactiveRules, state: ReactiveState, deaths: string[], now: number): ReactiveStep {
  if (state.attempts >= rules.maxRestarts) return stay(stick(state, tooMany(rules, deaths.join("; "))));
  const until = (state.lastRestart ?? Number.NEGATIVE_INFINITY) + backoffOf(rules, state.attempts);
  if (state.attempts > 0 && until > now) return stay({ ...state, phase: { name: "waiting", until, deaths } });
  return { state: { ...state, phase: { name: "choosing", deaths } }, effects: [{ do: "choose" }] };
}

function chosen(state: ReactiveState, deaths: string[], checkpoint: string | undefined): ReactiveStep {
  if (checkpoint === undefined)
    return stay(stick(state, `${deaths.join("; ")}; there is no complete checkpoint to restart from`));
  return {
    state: { ...state, phase: { name: "fencing", checkpoint, deaths } },
    effects: [{ do: "restart", checkpoint, avoid: state.silentHosts }],
  };
}

function restartFailed(
  rules: ReactiveRules,
  state: ReactiveState,
  deaths: string[],
  { now, cause, needsOperator }: { now: number; cause: string; needsOperator: boolean },
): ReactiveStep {
  if (needsOperator) return stay(stick(state, cause));
  if (state.attempts >= rules.maxRestarts) return stay(stick(state, tooMany(rules, cause)));
  const until = now + backoffOf(rules, state.attempts);
  return stay({ ...state, phase: { name: "waiting", until, deaths } });
}

function declined(state: ReactiveState, now: number): ReactiveStep {
  const { phase } = state;
  if (phase.name === "checkpointing")
    return stay(watch({ ...state, nextCheckpoint: Math.max(state.nextCheckpoint, now + DECLINED_MS) }));
  if (phase.name !== "choosing" && phase.name !== "fencing") return stay(state);
  return stay({ ...state, phase: { name: "waiting", until: now + DECLINED_MS, deaths: phase.deaths } });
}

function tooMany({ maxRestarts }: ReactiveRules, why: string): string {
  return `${maxRestarts} restart${maxRestarts === 1 ? "" : "s"} did not help: ${why}`;
}

/** Milliseconds between a restart and the next. */
export function backoffOf({ backoffMs }: ReactiveRules, attempts: number): number {
  return Math.min(backoffMs * 2 ** Math.max(0, attempts - 1), MAX_BACKOFF_MS);
}
