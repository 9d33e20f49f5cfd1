/**
 * Runs a checkpoint or restart: does the reducer's effects, tells it the events, keeps the deadlines. Each transition
 * is in the journal before its effects begin. Events are taken one at a time, in the order they came.
 */
import { SymvirtError } from "../../errors.js";
import type { Card } from "../cluster-file.js";
import { isUp } from "../conditions.js";
import type { Condition, DeadlineName } from "../cycle.js";
import { sentence } from "../errors-in-words.js";
import type { Fleet } from "../fleet.js";
import { Rendezvous } from "../rendezvous.js";
import type { CycleOutcome } from "../report.js";
import type { CycleProgress } from "../runner.js";
import type { CycleTarget, Journal } from "../state/journal.js";
import { judgeSet, type SetView } from "./set-conditions.js";
import {
  initialSet,
  isUndoing,
  reduceSet,
  type SetEffect,
  type SetEvent,
  type SetOp,
  type SetPhase,
  type SetState,
  type SetVerb,
} from "./set-cycle.js";
import { cardsOf, type SetOps, type SetVm } from "./set-ops.js";

export interface SetSpan {
  /** Undo phases follow each other as one "roll-back". */
  phase: Exclude<SetPhase, `undo:${string}`> | "roll-back";
  /** Milliseconds since the cycle began. */
  startMs: number;
  ms: number;
}

export interface SetEnd {
  outcome: CycleOutcome;
  message: string;
  unfinished: boolean;
  /** The checkpoint has its manifest. */
  kept: boolean;
  startedAt: string;
  totalMs: number;
  phases: SetSpan[];
}

export interface SetRunnerOptions {
  fleet: Fleet;
  verb: SetVerb;
  target: CycleTarget;
  checkpoint: string;
  vms: readonly SetVm[];
  journal: Journal;
  ops: SetOps;
  /** For a controller that takes over: the last step of the journal and the jobs that were told "quiet". */
  resumeFrom?: { step: number; quietJobs: readonly string[] };
  onProgress?: (progress: CycleProgress<SetPhase>) => void;
  /** How long an op may take to stop after it was told to, in milliseconds; a capture is read to its end first. */
  settleMs?: number;
}

export class SetRunner {
  readonly #options: SetRunnerOptions;
  readonly #meeting: Rendezvous;
  readonly #began = performance.now();
  readonly #startedAt = new Date().toISOString();
  readonly #cards: SetView["cards"];
  readonly #activeIn: Map<string, number>;
  readonly #ended: Promise<SetEnd>;
  readonly #spans: SetSpan[] = [];
  #state: SetState;
  #watching: Condition | undefined;
  #op: AbortController | undefined;
  #deadline: NodeJS.Timeout | undefined;
  #settle: NodeJS.Timeout | undefined;
  #deadlineName: DeadlineName = "prepare";
  #queue: SetEvent[] = [];
  #draining = false;
  #fresh = true;
  #refreshing: AbortController | undefined;
  #finish: (end: SetEnd) => void = () => undefined;
  #crash: (error: unknown) => void = () => undefined;

  constructor(options: SetRunnerOptions) {
    this.#options = options;
    const { target, fleet, journal, resumeFrom, vms, verb, checkpoint } = options;
    this.#state = initialSet(
      {
        ...{ verb, checkpoint, vms: vms.map((v) => v.vm), strategy: target.strategy },
        hasCards: vms.some((v) => v.cards.length > 0),
        hasJobs: target.jobs.length > 0,
      },
      resumeFrom?.step,
    );
    this.#cards = new Map(
      vms.map((v) => [v.vm, new Map<string, Card>(cardsOf(fleet, v).map(({ tag, card }) => [tag, card]))]),
    );
    this.#activeIn = new Map(
      vms.flatMap(({ vm }) => {
        const state = fleet.roster.state(vm);
        return verb === "restart" || state === undefined ? [] : [[vm, state.devices.filter(isUp).length]];
      }),
    );
    this.#meeting = new Rendezvous(fleet, target, {
      quiet: (job, step) => journal.append({ kind: "quiet", cycle: target.cycle, step, job }),
      ready: (job, step) => journal.append({ kind: "ready", cycle: target.cycle, step, job }),
      changed: () => this.#look(),
      trouble: (cause) => this.dispatch({ type: "abort", cause }),
      failed: (error) => this.#crash(error),
    });
    for (const job of resumeFrom?.quietJobs ?? []) this.#meeting.board.rememberQuiet(job);
    this.#ended = new Promise((resolve, reject) => {
      this.#finish = resolve;
      this.#crash = reject;
    });
  }

  /** Runs it from its first event to its end. Rejects only on an internal error. */
  async run(first: SetEvent): Promise<SetEnd> {
    // Of a restart no VM is there yet: its channel is opened when it runs.
    if (this.#options.verb === "checkpoint") this.#meeting.open();
    this.dispatch(first);
    try {
      return await this.#ended;
    } finally {
      this.#meeting.close();
      clearTimeout(this.#deadline);
      clearTimeout(this.#settle);
      this.#refreshing?.abort();
    }
  }

  /** Asks for the way back. The end tells what came of it. */
  abort(cause: string): void {
    this.dispatch({ type: "abort", cause });
  }

  /** Where it is now, for `status`. */
  progress(): CycleProgress<SetPhase> {
    const { phase, cause } = this.#state;
    return { phase, late: this.#late(), ...(cause === undefined ? {} : { cause }) };
  }

  dispatch(event: SetEvent): void {
    this.#queue.push(event);
    if (this.#draining) return;
    this.#draining = true;
    try {
      for (let next = this.#queue.shift(); next !== undefined; next = this.#queue.shift())
        this.#transition(next);
    } catch (error) {
      this.#crash(error);
      return;
    } finally {
      this.#draining = false;
    }
    // What the new phase waits for may be true already.
    this.#look();
  }

  #transition(event: SetEvent): void {
    const before = this.#state;
    const { state, effects } = reduceSet(before, event);
    if (state === before && effects.length === 0) return;
    this.#state = state;
    this.#options.journal.append({
      ...{ kind: "phase", cycle: this.#options.target.cycle, event: event.type, phase: state.phase },
      ...{ step: state.step, effects: effects.map(effectName) },
      ...("cause" in event ? { cause: event.cause } : {}),
    });
    if (state.phase !== before.phase) {
      this.#watching = undefined;
      this.#refreshing?.abort();
      this.#enterSpan(state.phase);
      if (this.#options.verb === "restart" && before.phase === "resume") this.#meeting.open();
    }
    for (const effect of effects) this.#perform(effect);
    this.#options.onProgress?.(this.progress());
  }

  #perform(effect: SetEffect): void {
    switch (effect.do) {
      case "order":
        this.#meeting.order(effect.want, effect.step);
        break;
      case "op":
        void this.#runOp(effect.op);
        break;
      case "cancel":
        this.#cancel(this.#state.stopping ?? "aborted");
        break;
      case "watch":
        this.#watching = effect.condition;
        // What a guest said of its cards before the attach or the tear-down proves nothing: ask anew.
        this.#fresh = effect.condition !== "link-up" && effect.condition !== "released";
        if (!this.#fresh) this.#refresh();
        break;
      case "arm":
        this.#arm(effect.deadline);
        break;
      case "end":
        this.#end(effect);
        break;
    }
  }

  async #runOp(op: SetOp): Promise<void> {
    const controller = new AbortController();
    this.#op = controller;
    let event: SetEvent;
    try {
      await this.#options.ops.run(op, controller.signal);
      event = { type: "ok" };
    } catch (error) {
      event = { type: "fail", cause: sentence(error) };
    }
    // Given up on: an op that did not stop in time must not speak for a later phase.
    if (this.#op !== controller) return;
    this.#op = undefined;
    clearTimeout(this.#settle);
    this.dispatch(event);
  }

  #cancel(cause: string): void {
    const op = this.#op;
    if (op === undefined) return;
    op.abort(new SymvirtError("interrupted", cause));
    const settleMs = this.#options.settleMs ?? this.#options.fleet.cluster.deadlines.migrate;
    this.#settle = setTimeout(() => {
      if (this.#op !== op) return;
      this.#op = undefined;
      const trouble = `${cause}, but the work of phase ${this.#state.phase} did not stop within ${settleMs / 1000} s`;
      this.dispatch({ type: "fail", cause: trouble, unsettled: true });
    }, settleMs);
  }

  #arm(name: DeadlineName): void {
    clearTimeout(this.#deadline);
    this.#deadlineName = name;
    const ms = this.#options.fleet.cluster.deadlines[name];
    this.#deadline = setTimeout(() => {
      const late = this.#late();
      const who = late.length === 0 ? "" : `: ${late.slice(0, 6).join("; ")}${late.length > 6 ? "; …" : ""}`;
      const { phase } = this.#state;
      const cause = `the deadline "${this.#deadlineName}" (${ms / 1000} s) passed in phase ${phase}${who}`;
      this.dispatch({ type: "deadline", cause });
    }, ms);
  }

  #view(): SetView {
    const view = this.#meeting.view(this.#state.step, new Map());
    return { ...view, cards: this.#cards, activeIn: this.#activeIn };
  }

  #late(): string[] {
    if (this.#watching === undefined) return [];
    const verdict = judgeSet(this.#watching, this.#view());
    return verdict.met === false ? verdict.late : [];
  }

  /** Looks at what the guests say now: ranks lost, and whether what is waited for has come true. */
  #look(): void {
    if (this.#draining || this.#state.phase === "ended") return;
    for (const cause of this.#meeting.takeLost()) this.dispatch({ type: "lost", cause });
    if (this.#watching === undefined) return;
    const verdict = judgeSet(this.#watching, this.#view());
    if (verdict.met === false || (verdict.met === true && !this.#fresh)) return;
    this.#watching = undefined;
    this.dispatch(verdict.met === true ? { type: "ok" } : { type: "step-failed", cause: verdict.why });
  }

  #refresh(): void {
    const { fleet, vms } = this.#options;
    const refresh = new AbortController();
    this.#refreshing = refresh;
    Promise.all(vms.map(({ vm }) => fleet.link(vm).query(refresh.signal))).then(
      () => {
        if (this.#refreshing !== refresh) return;
        this.#fresh = true;
        this.#look();
      },
      // Given up with the phase, or a link is quarantined: the phase's deadline tells.
      () => undefined,
    );
  }

  #enterSpan(phase: SetPhase): void {
    const now = performance.now() - this.#began;
    const name = isUndoing(phase) ? "roll-back" : (phase as SetSpan["phase"]);
    const open = this.#spans.at(-1);
    if (open !== undefined) {
      if (name === "roll-back" && open.phase === name) return;
      open.ms = now - open.startMs;
    }
    this.#spans.push({ phase: name, startMs: now, ms: 0 });
  }

  #end(effect: Extract<SetEffect, { do: "end" }>): void {
    const { journal, target } = this.#options;
    const { outcome, message, unfinished } = effect;
    clearTimeout(this.#deadline);
    journal.append({ kind: "end", cycle: target.cycle, outcome, message, unfinished });
    this.#finish({
      ...{ outcome, message, unfinished, kept: this.#state.kept, startedAt: this.#startedAt },
      totalMs: Math.round(performance.now() - this.#began),
      phases: this.#spans
        .filter((s) => s.phase !== "ended")
        .map((s) => ({ ...s, startMs: Math.round(s.startMs), ms: Math.round(s.ms) })),
    });
  }
}

function effectName(effect: SetEffect): string {
  switch (effect.do) {
    case "order":
      return `order ${effect.want} step ${effect.step}`;
    case "op":
      return effect.op;
    case "watch":
      return `watch ${effect.condition}`;
    case "arm":
      return `arm ${effect.deadline}`;
    case "end":
      return `end ${effect.outcome}`;
    case "cancel":
      return "cancel";
  }
}
