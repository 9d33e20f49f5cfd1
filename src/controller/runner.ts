/**
 * Runs a cycle: does the reducer's effects, tells it the events, keeps the deadlines. Each transition is in
 * the journal before its effects begin. Events are taken one at a time, in the order they came.
 */
import { SymvirtError } from "../errors.js";
import type { MigrationProgress } from "../vmm/driver.js";
import type { Card } from "./cluster-file.js";
import { type ConditionView, judge } from "./conditions.js";
import {
  type Condition,
  type CycleEvent,
  type CycleState,
  type DeadlineName,
  type Effect,
  initialState,
  isUndo,
  mayHold,
  type OpName,
  type Phase,
  reduce,
} from "./cycle.js";
import { sentence } from "./errors-in-words.js";
import type { Fleet } from "./fleet.js";
import { HeldRanks } from "./held-ranks.js";
import type { MigrationLimits } from "./limits.js";
import { cardsAt, Ops } from "./ops.js";
import { OutrunWatch } from "./outrun.js";
import { Rendezvous } from "./rendezvous.js";
import type { CycleOutcome, HoldReport } from "./report.js";
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
  #state: CycleState;
  #watching: Condition | undefined;
  #op: AbortController | undefined;
  #deadline: NodeJS.Timeout | undefined;
  #settle: NodeJS.Timeout | undefined;
  /** live: when the ranks are to be held, and when they should be. */
  #parkAfter: NodeJS.Timeout | undefined;
  #holdDeadline: NodeJS.Timeout | undefined;
  #outrun: OutrunWatch | undefined;
  #deadlineName: DeadlineName = "prepare";
  #deadlineMs = 0;
  #queue: CycleEvent[] = [];
  #draining = false;
  #fresh = true;
  #refreshing: AbortController | undefined;
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
    } finally {
      this.#meeting.close();
      clearTimeout(this.#deadline);
      clearTimeout(this.#settle);
      this.#stopWatchingCopy();
      this.#refreshing?.abort();
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
      late: this.#late(),
      ...(hold === undefined ? {} : { hold }),
      ...(cause === undefined ? {} : { cause }),
      ...(this.#migration === undefined ? {} : { migration: this.#migration }),
    };
  }

  dispatch(event: CycleEvent): void {
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
      this.#watching = undefined;
      this.#migration = undefined;
      this.#refreshing?.abort();
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
        void this.#runOp(effect.op);
        break;
      case "cancel":
        this.#cancel(this.#state.stopping ?? "aborted");
        break;
      case "watch":
        this.#watching = effect.condition;
        // What the guest said of its card before the attach or the tear-down proves nothing: ask anew.
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

  async #runOp(op: OpName): Promise<void> {
    const controller = new AbortController();
    this.#op = controller;
    let event: CycleEvent;
    const startedAt = performance.now();
    try {
      await this.#ops.run(op, controller.signal);
      if (op === "migrate" && this.#ops.migrated !== undefined) {
        const { transferred, downtimeMs = 0 } = this.#ops.migrated;
        this.#preCopy = { transferredBytes: transferred, downtimeMs };
      }
      if (op === "resume-destination" && this.#preCopy !== null)
        this.#preCopy.downtimeMs += Math.round(performance.now() - startedAt);
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
    const settleMs = this.#options.settleMs ?? SETTLE_MS;
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
    this.#deadlineMs = this.#options.fleet.cluster.deadlines[name];
    this.#deadline = setTimeout(() => {
      const late = this.#late();
      const who = late.length === 0 ? "" : `: ${late.slice(0, 6).join("; ")}${late.length > 6 ? "; …" : ""}`;
      const { phase } = this.#state;
      const cause = `the deadline "${this.#deadlineName}" (${this.#deadlineMs / 1000} s) passed in phase ${phase}${who}`;
      this.dispatch({ type: "deadline", cause });
    }, this.#deadlineMs);
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

  #late(): string[] {
    if (this.#watching === undefined) return [];
    const verdict = judge(this.#watching, this.#view());
    return verdict.met === false ? verdict.late : [];
  }

  /** Looks at what the guests say now: ranks lost, and whether what is waited for has come true. */
  #look(): void {
    if (this.#draining || this.#state.phase === "ended") return;
    for (const cause of this.#meeting.takeLost()) this.dispatch({ type: "lost", cause });
    this.#held.look(this.#view());
    if (this.#watching === undefined) return;
    const view = this.#view();
    this.#closeSpans(this.#watching, view);
    const verdict = judge(this.#watching, view);
    if (verdict.met === false || (verdict.met === true && !this.#fresh)) return;
    this.#watching = undefined;
    this.dispatch(verdict.met === true ? { type: "ok" } : { type: "step-failed", cause: verdict.why });
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

  #refresh(): void {
    const { fleet, target } = this.#options;
    const refresh = new AbortController();
    this.#refreshing = refresh;
    fleet
      .link(target.vm)
      .query(refresh.signal)
      .then(
        () => {
          if (this.#refreshing !== refresh) return;
          this.#fresh = true;
          this.#look();
        },
        // Given up with the phase, or the link is quarantined: the phase's deadline tells.
        () => undefined,
      );
  }

  #tell(): void {
    this.#options.onProgress?.(this.progress());
  }

  #end(effect: Extract<Effect, { do: "end" }>): void {
    const { journal, target } = this.#options;
    const { outcome, message, unfinished } = effect;
    clearTimeout(this.#deadline);
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

function effectName(effect: Effect): string {
  switch (effect.do) {
    case "order":
      return `order ${effect.want} step ${effect.step}`;
    case "hold":
    case "release":
      return `${effect.do} step ${effect.step}`;
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
