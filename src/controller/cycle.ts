/**
 * The cycle as a pure reducer: `(state, event) -> {state, effects}` over one table of phases. It knows
 * nothing of sockets and clocks; runner.ts does the effects and tells the events. Every path ends in one of
 * three outcomes: "done" (the VM runs at the destination with its card, the ranks on openib), "rolled-back"
 * (the same at the source) or "needs-operator" (a sentence says what a person must do).
 */
import type { Cluster } from "./cluster-file.js";
import type { CycleOutcome } from "./report.js";
import type { Strategy } from "./strategy.js";

/** Work that is begun once and ends by itself with `ok` or `fail`. */
export type OpName =
  | "launch-destination"
  | "detach-source"
  | "migrate"
  | "resume-destination"
  | "attach-destination"
  | "commit"
  | "end-destination"
  | "resume-source"
  | "attach-source"
  | "detach-destination"
  | "relaunch-source"
  | "return";

/** Something that becomes true by what the guests say. */
export type Condition =
  | "quiet"
  | "parked"
  /** live: the ranks that change all their routes run over tcp and have released the card, the others run. */
  | "on-tcp"
  /** live: no rank is closing its old route. */
  | "settled"
  | "released"
  | "link-up"
  | "running"
  | "held";

/** What all ranks are ordered to do. */
export type Order = "park" | "run-tcp" | "run-openib";

export type Effect =
  | { do: "order"; want: Order; step: number }
  /** Cooperative convergence: the ranks of the moving VM, and only these, stand still, and go on. */
  | { do: "hold"; step: number; cause: string }
  | { do: "release"; step: number }
  | { do: "op"; op: OpName }
  /** Abort the running op; it answers with `ok` or `fail` when it has stopped. */
  | { do: "cancel" }
  | { do: "watch"; condition: Condition }
  | { do: "arm"; deadline: DeadlineName }
  | { do: "end"; outcome: CycleOutcome; message: string; unfinished: boolean };

export type DeadlineName = keyof Cluster["deadlines"];

export type Phase =
  | "idle"
  | "prepare"
  | "drain"
  | "tear-down"
  | "wait"
  | "detach"
  | "pre-copy"
  | "switch-over"
  | "attach"
  | "link-up"
  | "re-init"
  | "commit"
  | "undo:settle"
  | "undo:park"
  | "undo:detach-destination"
  | "undo:relaunch-source"
  | "undo:return"
  | "undo:end-destination"
  | "undo:resume-source"
  | "undo:attach-source"
  | "undo:link-up"
  | "undo:re-init"
  | "ended";

export type CycleEvent =
  | { type: "begin" }
  /** A controller that takes over: where the VM is now (asked, not remembered) and how far the journal says it went. */
  | { type: "recover"; place: "source" | "destination"; reached: "prepare" | "park" | "detach" }
  | { type: "ok" }
  /** `unsettled`: the op did not stop when told to, so nobody knows what it did. */
  | { type: "fail"; cause: string; unsettled?: boolean }
  /** A rank reports that this step failed in it. */
  | { type: "step-failed"; cause: string }
  | { type: "deadline"; cause: string }
  | { type: "abort"; cause: string }
  /** live: pre-copy does not end by itself while the ranks of the moving VM run. */
  | { type: "hold"; cause: string }
  /** A rank has died or left. */
  | { type: "lost"; cause: string };

/** What the reducer must know of the cycle; fixed from its begin. */
export interface CycleShape {
  vm: string;
  from: string;
  to: string;
  /** The VM has a card on its source. */
  hasCards: boolean;
  /** It gets one at the destination. */
  getsCards: boolean;
  /** Ranks run on the VM, so jobs take part. */
  hasJobs: boolean;
  strategy: Strategy;
  /** live: the ranks of the jobs on other VMs keep openib among themselves. */
  perPeer: boolean;
  /** The ranks that change routes run over openib at the begin, so they have to leave the card. */
  leave: boolean;
  /** They are to run over openib at the end. */
  comeBack: boolean;
}

export interface CycleState {
  shape: CycleShape;
  phase: Phase;
  /** Phases still to go through after this one. */
  todo: readonly Phase[];
  step: number;
  /** Where the VM runs (between the two in "moved": complete at the destination, not yet running there). */
  place: "source" | "moved" | "destination";
  /** By a controller that found the VM at the destination: nobody knows whether its ranks use the card there. */
  tookOver: boolean;
  /** Root cause of the roll-back; the first wins. */
  cause?: string;
  /** The ranks of the moving VM are ordered to stand still until its memory is copied. */
  holding: boolean;
  /** The running op has been told to stop, because of this. */
  stopping?: string;
  /** A failed re-init is tried once more in each direction. */
  retried: boolean;
  /** Ranks lost after the VM had moved: their jobs cannot be helped by going back. */
  losses: readonly string[];
  /** live: openib does not come back at the source; the job runs over tcp. */
  overTcp?: string;
  /** Things that went wrong beside and did not stop the roll-back. */
  notes: readonly string[];
}

interface PhaseRule {
  op?: OpName;
  want?: Order;
  /** live: what is ordered and waited for instead. */
  live?: { want?: Order; condition: Condition };
  condition?: Condition;
  /** Absent: the deadline of the phase before goes on. */
  deadline?: DeadlineName;
}

/** The one table: what each phase does and how long it may take. */
const rules: Readonly<Record<Exclude<Phase, "idle" | "ended">, PhaseRule>> = {
  prepare: { op: "launch-destination", deadline: "prepare" },
  drain: {
    want: "park",
    condition: "quiet",
    deadline: "park",
    live: { want: "run-tcp", condition: "quiet" },
  },
  "tear-down": { condition: "parked", live: { condition: "on-tcp" } },
  wait: { condition: "released" },
  detach: { op: "detach-source", deadline: "detach" },
  "pre-copy": { op: "migrate", deadline: "migrate" },
  "switch-over": { op: "resume-destination", deadline: "attach" },
  attach: { op: "attach-destination", deadline: "attach" },
  "link-up": { condition: "link-up", deadline: "linkUp" },
  "re-init": { want: "run-openib", condition: "running", deadline: "resume" },
  commit: { op: "commit", deadline: "prepare" },
  // Ranks that close their old route are let finish: an order now would meet it half closed.
  "undo:settle": { condition: "settled", deadline: "park" },
  "undo:park": {
    want: "park",
    condition: "held",
    deadline: "park",
    live: { want: "run-tcp", condition: "held" },
  },
  "undo:detach-destination": { op: "detach-destination", deadline: "detach" },
  "undo:relaunch-source": { op: "relaunch-source", deadline: "prepare" },
  "undo:return": { op: "return", deadline: "migrate" },
  "undo:end-destination": { op: "end-destination", deadline: "prepare" },
  "undo:resume-source": { op: "resume-source", deadline: "attach" },
  "undo:attach-source": { op: "attach-source", deadline: "attach" },
  "undo:link-up": { condition: "link-up", deadline: "linkUp" },
  "undo:re-init": { want: "run-openib", condition: "running", deadline: "resume" },
};

const forward: readonly Phase[] = [
  "prepare",
  "drain",
  "tear-down",
  "wait",
  "detach",
  "pre-copy",
  "switch-over",
  "attach",
  "link-up",
  "re-init",
  "commit",
];
/** `recover`: the VM stays where it is. */
const forwardInPlace: readonly Phase[] = ["attach", "link-up", "re-init", "commit"];
const backInPlace: readonly Phase[] = ["undo:settle", "undo:park", "undo:detach-destination"];

/** `recover`: no VM moves. (A script's hold moves none either, but its ranks have left the card.) */
function isInPlace({ from, to, leave }: CycleShape): boolean {
  return from === to && !leave;
}

const atSource = (s: CycleShape) => s.hasCards;
const atDestination = (s: CycleShape) => s.getsCards;
const leaving = (s: CycleShape) => s.hasJobs && s.leave;
const comingBack = (s: CycleShape) => s.hasJobs && s.comeBack;
/** When a phase has nothing to do it is left out; absent: it always has. */
const needed: Partial<Record<Phase, (shape: CycleShape) => boolean>> = {
  drain: leaving,
  "tear-down": leaving,
  wait: atSource,
  detach: atSource,
  attach: atDestination,
  "link-up": atDestination,
  "re-init": comingBack,
  "undo:settle": (s) => s.hasJobs && s.strategy === "live",
  "undo:park": comingBack,
  "undo:detach-destination": atDestination,
  "undo:attach-source": atSource,
  "undo:link-up": atSource,
  "undo:re-init": leaving,
};

const restoreCard: readonly Phase[] = ["undo:attach-source", "undo:link-up", "undo:re-init"];
const comeBack: readonly Phase[] = [
  "undo:detach-destination",
  "undo:relaunch-source",
  "undo:return",
  "undo:resume-source",
  "undo:end-destination",
  ...restoreCard,
];

/** The phases in which the VM's memory is copied while it runs. */
const copying: ReadonlySet<Phase> = new Set(["pre-copy", "undo:return"]);

/** `resume`: of a controller that takes over, the last step and whether the ranks of the moving VM were held. */
export function initialState(shape: CycleShape, resume = { step: 0, held: false }): CycleState {
  const { step, held } = resume;
  return {
    ...{
      shape,
      phase: "idle",
      todo: [],
      step,
      place: "source",
      tookOver: false,
      holding: held,
      retried: false,
    },
    ...{ losses: [], notes: [] },
  };
}

/** Whether the ranks of the moving VM could be held now: they run, over tcp, while its memory is copied. */
export function mayHold({ phase, shape, holding, stopping }: CycleState): boolean {
  const run = shape.hasJobs && shape.strategy === "live";
  return run && copying.has(phase) && !holding && stopping === undefined;
}

/** The rule of a phase under the strategy of the cycle. */
function ruleOf(phase: Exclude<Phase, "idle" | "ended">, { strategy }: CycleShape): PhaseRule {
  const { live, ...rule } = rules[phase];
  return strategy === "live" && live !== undefined ? { ...rule, ...live } : rule;
}

export function isUndo(phase: Phase): boolean {
  return phase.startsWith("undo:");
}

/** Whether a rank lost now sends the cycle back, or only spoils its own job. */
function isBeforeMove(phase: Phase): boolean {
  const at = forward.indexOf(phase);
  return at >= 0 && at < forward.indexOf("switch-over");
}

export interface Step {
  state: CycleState;
  effects: Effect[];
}

/** One transition. An event that means nothing in the phase changes nothing. */
export function reduce(state: CycleState, event: CycleEvent): Step {
  return letGo(transition(state, event));
}

/**
 * Held ranks are let go when the copy they are held for has ended or is told to stop, before anything else is done: no
 * failure of a later step can leave them held. (No phase that may come next orders the ranks itself.)
 */
function letGo({ state, effects }: Step): Step {
  const goesOn = copying.has(state.phase) && state.stopping === undefined;
  if (!state.holding || goesOn || state.phase === "idle") return { state, effects };
  const step = state.step + 1;
  return { state: { ...state, step, holding: false }, effects: [{ do: "release", step }, ...effects] };
}

function transition(state: CycleState, event: CycleEvent): Step {
  if (state.phase === "ended") return { state, effects: [] };
  if (state.phase === "idle") return start(state, event);
  const rule = ruleOf(state.phase, state.shape);
  switch (event.type) {
    case "begin":
    case "recover":
      return { state, effects: [] };
    case "ok":
      return succeeded(state);
    case "fail":
      if (event.unsettled === true) return operator(state, event.cause);
      // What the op says of its own end is the more precise, if it names why it was stopped.
      return failed(state, event.cause.includes(state.stopping ?? "") ? event.cause : (state.stopping ?? ""));
    case "step-failed":
      if (rule.condition === undefined) return { state, effects: [] };
      if (rule.condition === "running" && !state.retried) {
        return enter({ ...state, retried: true }, state.phase, state.todo);
      }
      // The job runs on over tcp, nothing is held: all ranks are told so, and the roll-back goes on.
      if (state.phase === "undo:re-init" && state.shape.strategy === "live")
        return next({ ...state, overTcp: event.cause }, ["undo:park", ...state.todo]);
      return failed(state, event.cause);
    case "deadline":
      return interrupt(state, event.cause);
    case "abort":
      // On the way back it is being aborted already; in commit the job runs at the destination.
      if (isUndo(state.phase) || state.phase === "commit") return { state, effects: [] };
      return interrupt(state, event.cause);
    case "hold": {
      if (!mayHold(state)) return { state, effects: [] };
      const step = state.step + 1;
      const hold: Effect = { do: "hold", step, cause: event.cause };
      return { state: { ...state, step, holding: true }, effects: [hold] };
    }
    case "lost":
      if (isBeforeMove(state.phase)) return interrupt(state, event.cause);
      return { state: { ...state, losses: [...state.losses, event.cause] }, effects: [] };
  }
}

function start(state: CycleState, event: CycleEvent): Step {
  const order = (phases: readonly Phase[]) => relevant(state.shape, phases);
  const inPlace = isInPlace(state.shape);
  if (event.type === "begin") return next(state, order(inPlace ? forwardInPlace : forward));
  if (event.type !== "recover") return { state, effects: [] };
  if (event.place === "destination" && !inPlace) {
    return next(
      { ...state, place: "destination", tookOver: true },
      order(forward.slice(forward.indexOf("switch-over"))),
    );
  }
  const cause = "the controller of this cycle ended before the cycle did";
  const back: Record<typeof event.reached, readonly Phase[]> = {
    prepare: ["undo:end-destination"],
    park: ["undo:settle", "undo:re-init", "undo:end-destination"],
    detach: ["undo:end-destination", ...restoreCard],
  };
  return next({ ...state, cause }, order(inPlace ? backInPlace : back[event.reached]));
}

function relevant(shape: CycleShape, phases: readonly Phase[]): Phase[] {
  return phases.filter((p) => needed[p]?.(shape) ?? true);
}

/** Goes into a phase: its order to the ranks, its work, its deadline. */
function enter(state: CycleState, phase: Exclude<Phase, "idle" | "ended">, todo: readonly Phase[]): Step {
  const rule = ruleOf(phase, state.shape);
  const { stopping: _, ...rest } = state;
  const entered: CycleState = { ...rest, phase, todo };
  const effects: Effect[] = [];
  if (rule.deadline !== undefined) effects.push({ do: "arm", deadline: rule.deadline });
  if (rule.want !== undefined) {
    entered.step = state.step + 1;
    effects.push({ do: "order", want: rule.want, step: entered.step });
  }
  if (rule.op !== undefined) effects.push({ do: "op", op: rule.op });
  if (rule.condition !== undefined) effects.push({ do: "watch", condition: rule.condition });
  return { state: entered, effects };
}

function next(state: CycleState, todo: readonly Phase[]): Step {
  const [phase, ...rest] = todo;
  if (phase === undefined || phase === "idle" || phase === "ended") return finish(state);
  return enter({ ...state, retried: false }, phase, rest);
}

/** The phase's work is done, or was done before it could be stopped. */
function succeeded(state: CycleState): Step {
  const moved: Partial<Record<Phase, CycleState["place"]>> = {
    "pre-copy": "moved",
    "switch-over": "destination",
    "undo:return": "source",
    // What has arrived and not run is ended: the VM is its source's again, though it stands still there.
    ...(state.place === "moved" ? { "undo:end-destination": "source" } : {}),
    "undo:resume-source": "source",
  };
  const now: CycleState = { ...state, place: moved[state.phase] ?? state.place };
  const { stopping } = state;
  if (stopping === undefined || isUndo(state.phase) || state.phase === "commit") return next(now, state.todo);
  return back(now, stopping, true);
}

function interrupt(state: CycleState, cause: string): Step {
  if (state.phase === "idle" || state.phase === "ended") return { state, effects: [] };
  if (rules[state.phase].op === undefined) return failed(state, cause);
  if (state.stopping !== undefined) return { state, effects: [] };
  return { state: { ...state, stopping: cause }, effects: [{ do: "cancel" }] };
}

/** The phase failed: back, or on the way back on if it does not matter, else a person is needed. */
function failed(state: CycleState, cause: string): Step {
  if (state.phase === "commit") return operator(state, cause);
  if (!isUndo(state.phase)) return back(state, cause, false);
  const beside = state.phase === "undo:end-destination" && state.todo[0] !== "undo:resume-source";
  return beside ? next({ ...state, notes: [...state.notes, cause] }, state.todo) : operator(state, cause);
}

/** Turns round. `completed`: the work of this phase was done before it could be stopped. */
function back(state: CycleState, cause: string, completed: boolean): Step {
  const inPlace = isInPlace(state.shape);
  const way = (): readonly Phase[] => {
    if (inPlace) return state.phase === "re-init" ? backInPlace : backInPlace.slice(2);
    switch (state.phase) {
      case "prepare":
        return ["undo:end-destination"];
      case "drain":
      case "tear-down":
        return ["undo:settle", "undo:re-init", "undo:end-destination"];
      case "wait":
        return ["undo:re-init", "undo:end-destination"];
      case "detach":
        return ["undo:end-destination", ...restoreCard];
      case "pre-copy":
        return completed
          ? ["undo:end-destination", "undo:resume-source", ...restoreCard]
          : ["undo:end-destination", ...restoreCard];
      case "switch-over":
        // Not resumed there: the source still has the whole VM, once the destination is proven dead.
        return completed ? comeBack : ["undo:end-destination", "undo:resume-source", ...restoreCard];
      case "re-init":
        return ["undo:settle", "undo:park", ...comeBack];
      default:
        return comeBack;
    }
  };
  // A VM found running at the destination has been resumed long ago, and its ranks may use the card there by now.
  const todo = relevant(state.shape, state.tookOver ? ["undo:settle", "undo:park", ...comeBack] : way());
  return next({ ...state, cause: state.cause ?? cause }, todo);
}

function finish(state: CycleState): Step {
  const { vm, from, to, getsCards, hasJobs, strategy, comeBack, perPeer } = state.shape;
  const whose = perPeer ? "its ranks run" : "its job runs";
  if (state.losses.length > 0 && state.cause === undefined) {
    const message = `${vm} runs on ${to}${getsCards ? " with its card" : ""}, but ${state.losses.join("; ")}: start that job again`;
    return end(state, "needs-operator", message, false);
  }
  const also = [...state.notes, ...state.losses];
  const notes = also.length === 0 ? "" : ` (also: ${also.join("; ")})`;
  if (state.cause === undefined) {
    const what = getsCards ? " with its card" : "";
    if (isInPlace(state.shape) && comeBack && hasJobs) {
      const ranks = perPeer ? `the ranks on ${vm}` : `the ranks of the jobs of ${vm} on ${to}`;
      return end(state, "done", `${ranks} run over openib again`, false);
    }
    const overTcp = `, ${perPeer ? "its ranks over tcp with every peer" : "its job over tcp"}: \`symvirt recover ${vm}\` brings openib back once there is a card`;
    // A parked job is always on its own route again; one that is live may have none but tcp.
    const onTcp = strategy === "live" && !comeBack;
    const ranks = !hasJobs ? "" : onTcp ? overTcp : ", its ranks over openib";
    return end(state, "done", `${vm} runs on ${to}${what}${ranks}`, false);
  }
  if (state.overTcp !== undefined) {
    const also = state.overTcp === state.cause ? "" : `, and then ${state.overTcp}`;
    const advice = `put that right, then \`symvirt recover ${vm}\` brings openib back`;
    const message = `${vm} is on ${from} and ${whose} over tcp there: ${state.cause}${also}; ${advice}${notes}`;
    return end(state, "needs-operator", message, false);
  }
  if (isInPlace(state.shape)) {
    const who = perPeer ? `the ranks on ${vm} run` : `the job of ${vm} runs`;
    return end(state, "rolled-back", `${state.cause}; ${who} over tcp as before${notes}`, false);
  }
  return end(state, "rolled-back", `${state.cause}; ${vm} runs on ${from} as before${notes}`, false);
}

/** Nothing the controller can do: one sentence for a person. */
function operator(state: CycleState, trouble: string): Step {
  const { vm, from, to, hasCards, hasJobs, strategy } = state.shape;
  const where = {
    source: `${vm} is on ${from}`,
    moved: `${vm} is paused on ${to}, complete but not resumed`,
    destination: `${vm} is on ${to}`,
  }[state.place];
  const card = hasCards && cardAway(state) ? " without its card" : "";
  const ranks = !hasJobs ? "" : strategy === "live" ? ", its jobs run" : ", its jobs may be held";
  const why =
    state.cause === undefined || state.cause === trouble ? trouble : `${state.cause}, and then ${trouble}`;
  const message = `${where}${card}${ranks}: ${why}; put that right, then run \`symvirt abort\` to finish`;
  return end(state, "needs-operator", message, true);
}

function cardAway(state: CycleState): boolean {
  const there: Phase[] = [
    "prepare",
    "drain",
    "tear-down",
    "wait",
    "link-up",
    "re-init",
    "commit",
    "undo:link-up",
  ];
  return !there.includes(state.phase) && state.phase !== "undo:re-init";
}

function end(state: CycleState, outcome: CycleOutcome, message: string, unfinished: boolean): Step {
  return {
    state: { ...state, phase: "ended", todo: [] },
    effects: [{ do: "end", outcome, message, unfinished }],
  };
}
