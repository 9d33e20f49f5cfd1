/**
 * Runs a cycle: does the reducer's effects, tells it the events, keeps the deadlines. Each transition is in
 * the journal before its effects begin. Events are taken one at a time, in the order they came.
 */
import type { MigrationProgress } from "../vmm/driver.js";
import type { Card } from "./cluster-file.js";
import { type ConditionView, judge } from "./conditions.js";
import {
  type Condition,
  type CycleEvent,
  type CycleState,
  type Effect,
  initialState,
  isUndo,
  mayHold,
  type OpName,
  type Phase,
  reduce,
} from "./cycle.js";
import type { Fleet } from "./fleet.js";
import { HeldRanks } from "./held-ranks.js";
import type { MigrationLimits } from "./limits.js";
import { cardsAt, Ops } from "./ops.js";
import { OutrunWatch } from "./outrun.js";
import { Rendezvous } from "./rendezvous.js";
import type { CycleOutcome, HoldReport } from "./report.js";
import { Awaited } from "./run/awaited.js";
import { effectName } from "./run/effect-name.js";
import { EventQueue } from "./run/event-queue.js";
import { PhaseDeadline } from "./run/phase-deadline.js";
import { cutShort } from "./run/cut-short.js";
import { RunningOp } from "./run/running-op.js";
import { Spans } from "./spans.js";
import type { CycleTarget, Journal } from "./state/journal.js";

export interface CycleProgress<P = Phase> {
  phase: P;
  /** Who is waited for, when the phase waits for guests. */
  late: string[];
  /** Roll-back's root cause. */
  cause?: string;
  migration?: MigrationProgress;
  /** The ranks of the moving VM are held so that pre-copy can end; `late` are not yet, `overdue` past their deadline. */
  hold?: { cause: string; late: string[]; overdue: boolean };
}

export interface CycleEnd {
  outcome: CycleOutcome;
  message: string;
  unfinished: boolean;
  startedAt: string;
  totalMs: number;
  spans: Spans;
  holds: HoldReport[];
  preCopy: { transferredBytes: number; downtimeMs: number } | null;
}

export interface RunnerOptions {
  fleet: Fleet;
  target: CycleTarget;
  journal: Journal;
  limits: MigrationLimits;
  /** For a controller that takes over: the last step of the journal, the jobs that were told "quiet", and a hold. */
  resumeFrom?: { step: number; quietJobs: readonly string[]; held: boolean };
  onProgress?: (progress: CycleProgress) => void;
  /** How long an op may take to stop after it was told to, in milliseconds. */
  settleMs?: number;
}

const SETTLE_MS = 30_000;

export class CycleRunner {
  readonly #options: RunnerOptions;
  readonly #meeting: Rendezvous;
  readonly #ops: Ops;
  readonly #spans: Spans;
  readonly #held: HeldRanks;
  readonly #began = performance.now();
  readonly #startedAt = new Date().toISOString();
  readonly #ended: Promise<CycleEnd>;
  readonly #events: EventQueue<CycleEvent>;
  readonly #op: RunningOp;
  readonly #deadline: PhaseDeadline;
  readonly #awaited: Awaited;
  #state: CycleState;
  /** live: when the ranks are to be held, and when they should be. */
  #parkAfter: NodeJS.Timeout | undefined;
  #holdDeadline: NodeJS.Timeout | undefined;
  #outrun: OutrunWatch | undefined;
  #preCopy: CycleEnd["preCopy"] = null;
  #migration: MigrationProgress | undefined;
  #finish: (end: CycleEnd) => void = () => undefined;
  #crash: (error: unknown) => void = () => undefined;

  constructor(options: RunnerOptions) {
    this.#options = options;
    const { target, fleet, journal, resumeFrom } = options;
    this.#state = initialState(
      {
        vm: target.vm,
        from: target.from,
        to: target.to,
        hasCards: target.cards.some((c) => c.source !== null),
        getsCards: target.cards.some((c) => c.destination !== null),
        strategy: target.strategy,
        perPeer: target.jobs.some((j) => j.moving !== undefined),
        leave: target.leave,
        comeBack: target.comeBack,
        hasJobs: target.jobs.length > 0,
      },
      resumeFrom,
    );
    this.#events = new EventQueue<CycleEvent>({
      take: (event) => this.#transition(event),
      // What the new phase waits for may be true already.
      idle: () => this.#look(),
      crash: (error) => this.#crash(error),
    });
    this.#op = new RunningOp(options.settleMs ?? SETTLE_MS, (end) => this.dispatch(end));
    this.#deadline = new PhaseDeadline(
      fleet.cluster.deadlines,
      () => this.progress(),
      (cause) => this.dispatch({ type: "deadline", cause }),
    );
    this.#awaited = new Awaited(
      (signal) => fleet.link(target.vm).query(signal),
      () => this.#look(),
    );
    this.#ops = new Ops({
      fleet,
      target,
      limits: options.limits,
      onMigration: (progress) => {
        this.#migration = progress;
        if (this.#outrun?.sample(progress, performance.now()) === true)
          this.dispatch({ type: "hold", cause: "its memory changed as fast as it was sent" });
        this.#tell();
      },
    });
    this.#meeting = new Rendezvous(fleet, target, {
      quiet: (job, step) => journal.append({ kind: "quiet", cycle: target.cycle, step, job }),
      ready: (job, step) => journal.append({ kind: "ready", cycle: target.cycle, step, job }),
      changed: () => this.#look(),
      trouble: (cause) => this.dispatch({ type: "abort", cause }),
      failed: (error) => this.#crash(error),
    });
    for (const job of resumeFrom?.quietJobs ?? []) this.#meeting.board.rememberQuiet(job);
    const jobVms = target.jobs.length === 0 ? [] : this.#meeting.vms;
    const now = () => performance.now() - this.#began;
    this.#spans = new Spans(target.vm, jobVms, now);
    this.#held = new HeldRanks(now);
    this.#ended = new Promise((resolve, reject) => {
      this.#finish = resolve;
      this.#crash = reject;
    });
  }

  /** Runs the cycle from its first event to its end. Rejects only on an internal error. */
  async run(first: CycleEvent): Promise<CycleEnd> {
    this.#meeting.open();
    this.dispatch(first);
    try {
      return await this.#ended;
    } catch (error) {
      throw cutShort(error, this.#options.target.cycle, this.#state.phase);
    } finally {
      this.#meeting.close();
      this.#deadline.clear();
      this.#op.abandon();
      this.#stopWatchingCopy();
      this.#awaited.forget();
    }
  }

  /** Asks for the roll-back. The cycle's end tells what came of it. */
  abort(cause: string): void {
    this.dispatch({ type: "abort", cause });
  }

  /** Where the cycle is now, for `status`. */
  progress(): CycleProgress {
    const { phase, cause, holding } = this.#state;
    const hold = holding ? this.#held.now(this.#view()) : undefined;
    return {
      phase,
      late: this.#awaited.late((condition) => judge(condition, this.#view())),
      ...(hold === undefined ? {} : { hold }),
      ...(cause === undefined ? {} : { cause }),
      ...(this.#migration === undefined ? {} : { migration: this.#migration }),
    };
  }

  dispatch(event: CycleEvent): void {
    this.#events.push(event);
  }

  #transition(event: CycleEvent): void {
    const before = this.#state;
    const { state, effects } = reduce(before, event);
    if (state === before && effects.length === 0) return;
    this.#state = state;
    this.#options.journal.append({
      kind: "phase",
      cycle: this.#options.target.cycle,
      event: event.type,
      phase: state.phase,
      step: state.step,
      effects: effects.map(effectName),
      ...("cause" in event ? { cause: event.cause } : {}),
      ...(state.holding ? { held: true } : {}),
    });
    if (state.phase !== before.phase) {
      this.#awaited.forget();
      this.#migration = undefined;
      this.#stopWatchingCopy();
      if (mayHold(state)) this.#watchCopy();
      this.#spans.enter(state.phase, state.shape.hasJobs);
      if (state.phase === "switch-over" && this.#ops.migrated?.downtimeMs !== undefined)
        this.#spans.shiftDowntime(this.#ops.migrated.downtimeMs);
    }
    for (const effect of effects) this.#perform(effect);
    this.#tell();
  }

  #perform(effect: Effect): void {
    switch (effect.do) {
      case "order":
        this.#meeting.order(effect.want, effect.step);
        break;
      case "hold":
        this.#hold(effect.step, effect.cause);
        break;
      case "release":
        this.#held.released(effect.step, this.#view());
        this.#meeting.orderMoving("run-tcp", effect.step);
        clearTimeout(this.#holdDeadline);
        break;
      case "op":
        this.#op.begin((signal) => this.#runOp(effect.op, signal));
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

  async #runOp(op: OpName, signal: AbortSignal): Promise<void> {
    const startedAt = performance.now();
    await this.#ops.run(op, signal);
    if (op === "migrate" && this.#ops.migrated !== undefined) {
      const { transferred, downtimeMs = 0 } = this.#ops.migrated;
      this.#preCopy = { transferredBytes: transferred, downtimeMs };
    }
    if (op === "resume-destination" && this.#preCopy !== null)
      this.#preCopy.downtimeMs += Math.round(performance.now() - startedAt);
  }

  /** Pre-copy begins, of ranks that run: it may not end by itself. */
  #watchCopy(): void {
    const { parkAfterMs } = this.#options.limits;
    if (parkAfterMs === "never") return;
    this.#outrun = new OutrunWatch();
    if (parkAfterMs === undefined) return;
    const cause = `pre-copy had not ended after ${parkAfterMs / 1000} s`;
    this.#parkAfter = setTimeout(() => this.dispatch({ type: "hold", cause }), parkAfterMs);
  }

  #stopWatchingCopy(): void {
    clearTimeout(this.#parkAfter);
    clearTimeout(this.#holdDeadline);
    this.#outrun = undefined;
  }

  #hold(step: number, cause: string): void {
    this.#stopWatchingCopy();
    this.#meeting.orderMoving("hold", step);
    this.#held.ordered(step, cause);
    // Nothing fails for ranks that are late: who they are goes into the report, and they are held when they come.
    this.#holdDeadline = setTimeout(() => {
      this.#held.overdue(this.#view());
      this.#tell();
    }, this.#options.fleet.cluster.deadlines.hold);
  }

  #view(): ConditionView {
    const { fleet, target } = this.#options;
    const host = isUndo(this.#state.phase) ? target.from : target.to;
    const expected = new Map<string, Card>(
      [...cardsAt(fleet, target, host)].map(([tag, { card }]) => [tag, card]),
    );
    return this.#meeting.view(this.#state.step, expected);
  }

  /** Looks at what the guests say now: ranks lost, and whether what is waited for has come true. */
  #look(): void {
    if (this.#events.busy || this.#state.phase === "ended") return;
    for (const cause of this.#meeting.takeLost()) this.dispatch({ type: "lost", cause });
    const view = this.#view();
    this.#held.look(view);
    if (this.#awaited.condition !== undefined) this.#closeSpans(this.#awaited.condition, view);
    const end = this.#awaited.settled((condition) => judge(condition, view));
    if (end !== undefined) this.dispatch(end);
  }

  /** A VM whose ranks are all through ends its span before the last VM does. */
  #closeSpans(condition: Condition, view: ConditionView): void {
    if (
      isUndo(this.#state.phase) ||
      (condition !== "parked" && condition !== "on-tcp" && condition !== "running")
    )
      return;
    for (const vm of this.#meeting.finished(condition, view)) this.#spans.done(vm);
  }

  #tell(): void {
    this.#options.onProgress?.(this.progress());
  }

  #end(effect: Extract<Effect, { do: "end" }>): void {
    const { journal, target } = this.#options;
    const { outcome, message, unfinished } = effect;
    this.#deadline.clear();
    journal.append({ kind: "end", cycle: target.cycle, outcome, message, unfinished });
    this.#finish({
      outcome,
      message,
      unfinished,
      startedAt: this.#startedAt,
      totalMs: Math.round(performance.now() - this.#began),
      spans: this.#spans,
      holds: this.#held.reports(),
      preCopy: this.#preCopy,
    });
  }
}
