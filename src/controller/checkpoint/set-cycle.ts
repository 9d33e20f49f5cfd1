/**
 * A checkpoint or restart of all VMs as a pure reducer, as cycle.ts is for the move of one: `(state, event) ->
 * {state, effects}` over one table. set-runner.ts does the effects and tells the events.
 */
import type { Condition, DeadlineName, Order } from "../cycle.js";
import type { CycleOutcome } from "../report.js";
import type { Strategy } from "../strategy.js";
import { finish, operator } from "./set-ends.js";

export type SetVerb = "checkpoint" | "restart";

/** Work on all VMs that is begun once and ends by itself with `ok` or `fail`. */
export type SetOp =
  | "detach"
  | "hold"
  | "cut"
  | "save"
  | "keep"
  | "attach"
  | "load"
  | "resume"
  | "join"
  | "place"
  | "release"
  | "end";

export type SetPhase =
  | "idle"
  // checkpoint
  | "drain"
  | "tear-down"
  | "wait"
  | "detach"
  | "hold"
  | "cut"
  | "save"
  | "keep"
  // restart
  | "load"
  | "resume"
  | "join"
  // both
  | "attach"
  | "link-up"
  | "re-init"
  | "place"
  | "undo:settle"
  | "undo:release"
  | "undo:attach"
  | "undo:link-up"
  | "undo:re-init"
  | "undo:end"
  | "ended";

export type SetEffect =
  | { do: "order"; want: Order; step: number }
  | { do: "op"; op: SetOp }
  /** Abort the running op; it answers with `ok` or `fail` when it has stopped. */
  | { do: "cancel" }
  | { do: "watch"; condition: Condition }
  | { do: "arm"; deadline: DeadlineName }
  | { do: "end"; outcome: CycleOutcome; message: string; unfinished: boolean };

export type SetEvent =
  | { type: "begin" }
  /** A controller that takes over; `reached` is how far the journal says it went. */
  | { type: "recover"; reached: "begin" | "drain" | "detach" | "cut" | "kept" | "place" }
  | { type: "ok" }
  | { type: "fail"; cause: string; unsettled?: boolean }
  | { type: "step-failed"; cause: string }
  | { type: "deadline"; cause: string }
  | { type: "abort"; cause: string }
  /** A rank has died or left. */
  | { type: "lost"; cause: string };

/** What the reducer must know; fixed from the begin. */
export interface SetShape {
  verb: SetVerb;
  /** Id of the checkpoint. */
  checkpoint: string;
  vms: readonly string[];
  hasCards: boolean;
  hasJobs: boolean;
  strategy: Strategy;
}

export interface SetState {
  shape: SetShape;
  phase: SetPhase;
  todo: readonly SetPhase[];
  step: number;
  /** Root cause of the way back; the first wins. */
  cause?: string;
  stopping?: string;
  retried: boolean;
  /** The checkpoint has its manifest. */
  kept: boolean;
  losses: readonly string[];
}

interface PhaseRule {
  op?: SetOp;
  want?: Order;
  condition?: Condition;
  /** live: what is ordered and waited for instead. */
  live?: { want?: Order; condition: Condition };
  /** Absent: the deadline of the phase before goes on. */
  deadline?: DeadlineName;
}

type Working = Exclude<SetPhase, "idle" | "ended">;

const rules: Readonly<Record<Working, PhaseRule>> = {
  drain: {
    want: "park",
    condition: "quiet",
    deadline: "park",
    live: { want: "run-tcp", condition: "quiet" },
  },
  "tear-down": { condition: "parked", live: { condition: "on-tcp" } },
  wait: { condition: "released" },
  detach: { op: "detach", deadline: "detach" },
  hold: { op: "hold", deadline: "prepare" },
  // One op, as the VMs have no network meanwhile: nothing is written to the journal between its steps.
  cut: { op: "cut", deadline: "migrate" },
  save: { op: "save" },
  keep: { op: "keep" },
  load: { op: "load", deadline: "migrate" },
  resume: { op: "resume", deadline: "attach" },
  join: { op: "join" },
  attach: { op: "attach", deadline: "attach" },
  "link-up": { condition: "link-up", deadline: "linkUp" },
  "re-init": { want: "run-openib", condition: "running", deadline: "resume" },
  place: { op: "place", deadline: "prepare" },
  // Ranks that close their old route are let finish: an order now would meet it half closed.
  "undo:settle": { condition: "settled", deadline: "park" },
  // A capture that is on is let run to its end (vmm/qemu/capture.ts).
  "undo:release": { op: "release", deadline: "migrate" },
  "undo:attach": { op: "attach", deadline: "attach" },
  "undo:link-up": { condition: "link-up", deadline: "linkUp" },
  "undo:re-init": { want: "run-openib", condition: "running", deadline: "resume" },
  "undo:end": { op: "end", deadline: "prepare" },
};

const cardsBack: readonly SetPhase[] = ["undo:attach", "undo:link-up", "undo:re-init"];
const forward: Readonly<Record<SetVerb, readonly SetPhase[]>> = {
  checkpoint: [
    ...(["drain", "tear-down", "wait", "detach", "hold", "cut", "save"] as const),
    // Before the cards come back: what fails after this costs no checkpoint.
    ...(["keep", "attach", "link-up", "re-init"] as const),
  ],
  restart: ["load", "resume", "join", "attach", "link-up", "re-init", "place"],
};

const withCards = (s: SetShape) => s.hasCards;
const withJobs = (s: SetShape) => s.hasJobs;
/** When a phase has nothing to do it is left out; absent: it always has. */
const needed: Partial<Record<SetPhase, (shape: SetShape) => boolean>> = {
  drain: withJobs,
  "tear-down": withJobs,
  wait: withCards,
  detach: withCards,
  attach: withCards,
  "link-up": withCards,
  "re-init": withJobs,
  "undo:settle": (s) => s.hasJobs && s.strategy === "live",
  "undo:attach": withCards,
  "undo:link-up": withCards,
  "undo:re-init": withJobs,
};

export interface SetStep {
  state: SetState;
  effects: SetEffect[];
}

export function initialSet(shape: SetShape, step = 0): SetState {
  return { shape, phase: "idle", todo: [], step, retried: false, kept: false, losses: [] };
}

export const isUndoing = (phase: SetPhase): boolean => phase.startsWith("undo:");

function ruleOf(phase: Working, { strategy }: SetShape): PhaseRule {
  const { live, ...rule } = rules[phase];
  return strategy === "live" && live !== undefined ? { ...rule, ...live } : rule;
}

const relevant = (shape: SetShape, phases: readonly SetPhase[]): SetPhase[] =>
  phases.filter((phase) => needed[phase]?.(shape) ?? true);

/** One transition. An event that means nothing in the phase changes nothing. */
export function reduceSet(state: SetState, event: SetEvent): SetStep {
  const same = { state, effects: [] };
  if (state.phase === "ended") return same;
  if (state.phase === "idle") return start(state, event);
  const { condition } = ruleOf(state.phase, state.shape);
  switch (event.type) {
    case "begin":
    case "recover":
      return same;
    case "ok":
      return succeeded(state);
    case "fail":
      if (event.unsettled === true) return operator(state, event.cause);
      // What the op says of its own end is the more precise, if it names why it was stopped.
      return failed(state, event.cause.includes(state.stopping ?? "") ? event.cause : (state.stopping ?? ""));
    case "step-failed":
      if (condition === undefined) return same;
      if (condition === "running" && !state.retried)
        return enter({ ...state, retried: true }, state.phase, state.todo);
      return failed(state, event.cause);
    case "deadline":
      return interrupt(state, event.cause);
    case "abort":
      // On the way back it is being aborted already; a checkpoint that is kept is only brought to its end.
      if (isUndoing(state.phase) || state.kept || state.phase === "place") return same;
      return interrupt(state, event.cause);
    case "lost":
      if (isBeforeCut(state)) return interrupt(state, event.cause);
      return { state: { ...state, losses: [...state.losses, event.cause] }, effects: [] };
  }
}

/** Whether a lost rank spoils what is done; after the cut, and once a restart's ranks run, it only spoils its own job. */
function isBeforeCut({ shape, phase }: SetState): boolean {
  if (shape.verb === "restart") return !isUndoing(phase) && phase !== "place";
  const at = forward.checkpoint.indexOf(phase);
  return at >= 0 && at < forward.checkpoint.indexOf("cut");
}

function start(state: SetState, event: SetEvent): SetStep {
  const { shape } = state;
  if (event.type === "begin") return next(state, relevant(shape, forward[shape.verb]));
  if (event.type !== "recover") return { state, effects: [] };
  const cause = `the controller of this ${shape.verb} ended before it did`;
  // Its ranks ran over openib by then.
  if (event.reached === "place") return next(state, ["place"]);
  if (shape.verb === "restart") return next({ ...state, cause }, ["undo:end"]);
  const ways: Record<Exclude<typeof event.reached, "place">, readonly SetPhase[]> = {
    begin: [],
    drain: ["undo:settle", "undo:re-init"],
    detach: cardsBack,
    cut: ["undo:release", ...cardsBack],
    kept: ["undo:release", ...cardsBack],
  };
  return next({ ...state, cause, kept: event.reached === "kept" }, relevant(shape, ways[event.reached]));
}

/** Goes into a phase: its order to the ranks, its work, its deadline. */
function enter(state: SetState, phase: Working, todo: readonly SetPhase[]): SetStep {
  const { op, want, condition, deadline } = ruleOf(phase, state.shape);
  const { stopping: _, ...rest } = state;
  const entered: SetState = { ...rest, phase, todo };
  const effects: SetEffect[] = [];
  if (deadline !== undefined) effects.push({ do: "arm", deadline });
  if (want !== undefined) {
    entered.step = state.step + 1;
    effects.push({ do: "order", want, step: entered.step });
  }
  if (op !== undefined) effects.push({ do: "op", op });
  if (condition !== undefined) effects.push({ do: "watch", condition });
  return { state: entered, effects };
}

function next(state: SetState, todo: readonly SetPhase[]): SetStep {
  const [phase, ...rest] = todo;
  if (phase === undefined || phase === "idle" || phase === "ended") return finish(state);
  return enter({ ...state, retried: false }, phase, rest);
}

/** The phase's work is done, or was done before it could be stopped. */
function succeeded(state: SetState): SetStep {
  const now = state.phase === "keep" ? { ...state, kept: true } : state;
  const { stopping } = state;
  if (stopping === undefined || isUndoing(state.phase) || now.kept) return next(now, state.todo);
  return back(now, stopping);
}

function interrupt(state: SetState, cause: string): SetStep {
  if (state.phase === "idle" || state.phase === "ended") return { state, effects: [] };
  if (rules[state.phase].op === undefined) return failed(state, cause);
  if (state.stopping !== undefined) return { state, effects: [] };
  return { state: { ...state, stopping: cause }, effects: [{ do: "cancel" }] };
}

function failed(state: SetState, cause: string): SetStep {
  // A restart that runs is not taken back for what is noted of it.
  return isUndoing(state.phase) || state.phase === "place" ? operator(state, cause) : back(state, cause);
}

function back(state: SetState, cause: string): SetStep {
  const way = (): readonly SetPhase[] => {
    if (state.shape.verb === "restart") return ["undo:end"];
    switch (state.phase) {
      case "drain":
      case "tear-down":
        return ["undo:settle", "undo:re-init"];
      case "wait":
        return ["undo:re-init"];
      case "detach":
        return cardsBack;
      case "attach":
      case "link-up":
        return cardsBack;
      case "re-init":
        return ["undo:settle", ...cardsBack];
      default:
        return ["undo:release", ...cardsBack];
    }
  };
  return next({ ...state, cause: state.cause ?? cause }, relevant(state.shape, way()));
}
