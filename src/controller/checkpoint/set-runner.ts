/**
 * Runs a checkpoint or restart: does the reducer's effects, tells it the events, keeps the deadlines. Each transition
 * is in the journal before its effects begin. Events are taken one at a time, in the order they came.
 */
import type { Card } from "../cluster-file.js";
import { isUp } from "../conditions.js";
import type { Fleet } from "../fleet.js";
import { Rendezvous } from "../rendezvous.js";
import type { CycleOutcome } from "../report.js";
import { CAPTURE_RECOVERY_MS } from "../../vmm/driver.js";
import { Awaited } from "../run/awaited.js";
import { effectName } from "../run/effect-name.js";
import { EventQueue } from "../run/event-queue.js";
import { PhaseDeadline } from "../run/phase-deadline.js";
import { cutShort } from "../run/cut-short.js";
import { RunningOp } from "../run/running-op.js";
import type { CycleProgress } from "../runner.js";
import type { CycleTarget, Journal } from "../state/journal.js";
import { judgeSet, type SetView } from "./set-conditions.js";
import {
  initialSet,
  isUndoing,
  reduceSet,
  type SetEffect,
  type SetEvent,
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
  readonly #events: EventQueue<SetEvent>;
  readonly #op: RunningOp;
  readonly #deadline: PhaseDeadline;
  readonly #awaited: Awaited;
  #state: SetState;
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
    const { deadlines } = fleet.cluster;
    this.#events = new EventQueue<SetEvent>({
      take: (event) => this.#transition(event),
      // What the new phase waits for may be true already.
      idle: () => this.#look(),
      crash: (error) => this.#crash(error),
    });
    this.#op = new RunningOp(options.settleMs ?? Math.max(deadlines.migrate, CAPTURE_RECOVERY_MS), (end) =>
      this.dispatch(end),
    );
    this.#deadline = new PhaseDeadline(
      deadlines,
      () => this.progress(),
      (cause) => this.dispatch({ type: "deadline", cause }),
    );
    this.#awaited = new Awaited(
      (signal) => Promise.all(vms.map(({ vm }) => fleet.link(vm).query(signal))),
      () => this.#look(),
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
    } catch (error) {
      throw cutShort(error, this.#options.target.cycle, this.#state.phase);
    } finally {
      this.#meeting.close();
      this.#deadline.clear();
      this.#op.abandon();
      this.#awaited.forget();
    }
  }

  /** Asks for the way back. The end tells what came of it. */
  abort(cause: string): void {
    this.dispatch({ type: "abort", cause });
  }

  /** Where it is now, for `status`. */
  progress(): CycleProgress<SetPhase> {
    const { phase, cause } = this.#state;
    const late = this.#awaited.late((condition) => judgeSet(condition, this.#view()));
    return { phase, late, ...(cause === undefined ? {} : { cause }) };
  }

  dispatch(event: SetEvent): void {
    this.#events.push(event);
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
      this.#awaited.forget();
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
        this.#op.begin((signal) => this.#options.ops.run(effect.op, signal));
        break;
      case "cancel":
        this.#op.cancel(this.#state.stopping ?? "aborted", this.#state.phase);
        break;
      case "watch":
        this.#awaited.watch(effect.condition);
        break;
      case "arm":
        this.#deadline.arm(effect.deadline);
        break;
      case "end":
        this.#end(effect);
        break;
    }
  }

  #view(): SetView {
    const view = this.#meeting.view(this.#state.step, new Map());
    return { ...view, cards: this.#cards, activeIn: this.#activeIn };
  }

  /** Looks at what the guests say now: ranks lost, and whether what is waited for has come true. */
  #look(): void {
    if (this.#events.busy || this.#state.phase === "ended") return;
    for (const cause of this.#meeting.takeLost()) this.dispatch({ type: "lost", cause });
    const end = this.#awaited.settled((condition) => judgeSet(condition, this.#view()));
    if (end !== undefined) this.dispatch(end);
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
    this.#deadline.clear();
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
