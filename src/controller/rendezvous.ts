/**
 * The host's side of a meeting with the ranks of a cycle, over all their agents: the order of the current
 * step, the board, what is told again after a reconnect, and who has been lost.
 */
import type { SymvirtError } from "../errors.js";
import type { GuestPost, RankPhase } from "../protocol/messages.js";
import { Board } from "./board.js";
import type { Card } from "./cluster-file.js";
import { type ConditionView, isUp, livingRanks, rankIs, reportOf } from "./conditions.js";
import type { Order } from "./cycle.js";
import type { Fleet } from "./fleet.js";
import type { LevelMessage } from "./guest-link.js";
import { changesRoutes } from "./movers.js";
import type { CycleTarget } from "./state/journal.js";

/** After an order that is not done by then; twice as long the next time, and so on. Milliseconds. */
const TELL_AGAIN_MS = 5_000;

export interface RendezvousEvents {
  /** A job's "quiet" set is complete: to be journalled before its ranks hear of it. */
  quiet: (job: string, step: number) => void;
  /** The same of its "ready" set. */
  ready: (job: string, step: number) => void;
  /** Some guest said something new, or went silent. */
  changed: () => void;
  /** The meeting cannot go on: a guest is quarantined, a board is full. */
  trouble: (cause: string) => void;
  /** Our own failure while taking a guest's message (the journal cannot be written, say). */
  failed: (error: unknown) => void;
}

export class Rendezvous {
  readonly board: Board;
  /** VMs with ranks of the cycle, and the moving one. */
  readonly vms: readonly string[];
  readonly lost = new Set<string>();
  readonly #fleet: Fleet;
  readonly #target: CycleTarget;
  readonly #events: RendezvousEvents;
  readonly #cleanup: (() => void)[] = [];
  readonly #restarted = new Set<string>();
  #activeBefore = 0;
  #again: NodeJS.Timeout | undefined;
  readonly #tellAgainMs: number;
  /** Posts that were not taken in this step, and why, for messages. */
  readonly #refused = new Map<string, string>();
  #want: { phase: Order; step: number } | undefined;
  /** A newer want of one VM's ranks alone. */
  #wantOf: { vm: string; phase: RankPhase; step: number } | undefined;

  constructor(fleet: Fleet, target: CycleTarget, events: RendezvousEvents) {
    this.#fleet = fleet;
    this.#tellAgainMs = fleet.timing.tellAgainMs ?? TELL_AGAIN_MS;
    this.#target = target;
    this.#events = events;
    const ranks = target.jobs.flatMap((j) => j.ranks.map((r) => ({ ...r, job: j.job })));
    this.vms = [...new Set([target.vm, ...ranks.map((r) => r.vm)])];
    const owner = new Map(ranks.map((r) => [`${r.job}/${r.rank}`, r.vm]));
    this.board = new Board({
      cycle: target.cycle,
      jobs: target.jobs,
      mayPost: (vm, job, rank) => owner.get(`${job}/${rank}`) === vm,
      onQuiet: events.quiet,
      onReady: events.ready,
      onComplete: (job, parts) => {
        for (const vm of this.#vmsOf(job)) fleet.link(vm).send(parts());
      },
      onOverflow: (job, limit) =>
        events.trouble(`the ranks of job ${job} posted more than ${limit} bytes to the board`),
    });
    // Ranks that are away at the begin have torn down in an earlier cycle.
    for (const job of target.jobs) {
      const movers = job.ranks.filter((r) => changesRoutes(job, r.rank));
      if (!target.leave || movers.every((r) => r.away)) this.board.rememberQuiet(job.job);
    }
  }

  /**
   * What a guest has not got by then is told again, ever more seldom: no line is lost that we know of, but one that is
   * would cost the whole cycle.
   */
  #tellAgainLater(ms: number): void {
    clearTimeout(this.#again);
    this.#again = setTimeout(() => {
      for (const vm of this.vms) this.#fleet.link(vm).tellAgain();
      this.#tellAgainLater(2 * ms);
    }, ms);
  }

  /** Begins to listen to the guests; the order is told again after every reconnect from now on. */
  open(): void {
    this.#fleet.level = (vm) => this.#level(vm);
    const { vm, cards } = this.#target;
    const added = cards.filter((c) => c.source === null).length;
    this.#activeBefore = added + (this.#fleet.roster.state(vm)?.devices.filter(isUp).length ?? 0);
    for (const vm of this.vms) {
      const link = this.#fleet.link(vm);
      const changed = () => this.#events.changed();
      const post = (chunk: GuestPost) => this.#onPost(vm, chunk);
      const quarantined = (error: SymvirtError) => this.#onQuarantine(vm, error);
      link.on("state", changed).on("down", changed).on("post", post).on("quarantined", quarantined);
      this.#cleanup.push(() =>
        link.off("state", changed).off("down", changed).off("post", post).off("quarantined", quarantined),
      );
    }
  }

  close(): void {
    clearTimeout(this.#again);
    for (const undo of this.#cleanup.splice(0)) undo();
    this.#fleet.level = () => [];
  }

  /** Orders a step. The board of the step before is closed first: none of its sets can complete any more. */
  order(phase: Order, step: number): void {
    this.board.open(step);
    this.#refused.clear();
    this.#want = { phase, step };
    this.#wantOf = undefined;
    for (const vm of this.vms) this.#fleet.link(vm).send(this.#wants(vm));
    this.#tellAgainLater(this.#tellAgainMs);
  }

  /** Orders a step of the moving VM's ranks alone, which needs no board: they meet nobody for it. */
  orderMoving(phase: RankPhase, step: number): void {
    const { vm } = this.#target;
    this.#wantOf = { vm, phase, step };
    this.#fleet.link(vm).send(this.#wants(vm));
  }

  /** What the conditions are judged by. */
  view(step: number, expected: ReadonlyMap<string, Card>): ConditionView {
    return {
      target: this.#target,
      step,
      roster: this.#fleet.roster,
      board: this.board,
      lost: this.lost,
      refused: this.#refused,
      expected,
      activeBefore: this.#activeBefore,
      silent: (vm) => {
        const link = this.#fleet.link(vm);
        return link.hello === undefined ? link.trouble : undefined;
      },
    };
  }

  /** VMs all of whose ranks have done what is asked, though others may be late. */
  finished(condition: "parked" | "on-tcp" | "running", view: ConditionView): string[] {
    const ranks = livingRanks(view);
    return this.vms.filter((vm) => {
      const own = ranks.filter((r) => r.vm === vm);
      return own.length > 0 && own.every((r) => rankIs(condition, r, view));
    });
  }

  /**
   * Ranks that have died since the last call, each as a sentence. Of one that has left in order nothing is said: its
   * job is at its end (MPI_Finalize is of all ranks), which is no failure; nobody waits for it any more.
   */
  takeLost(): string[] {
    const news: string[] = [];
    for (const { job, ranks } of this.#target.jobs) {
      for (const r of ranks) {
        const key = `${job}/${r.rank}`;
        const report = reportOf(this.#fleet.roster, { ...r, job });
        if (this.lost.has(key) || (report?.state !== "lost" && report?.state !== "left")) continue;
        this.lost.add(key);
        if (report.state === "lost") news.push(`rank ${r.rank} of job ${job} on ${r.vm} died`);
      }
    }
    return news;
  }

  *#wants(vm: string): Iterable<LevelMessage> {
    const { cycle, jobs } = this.#target;
    const want = this.#wantOf?.vm === vm ? this.#wantOf : this.#want;
    if (want === undefined) return;
    const { phase, step } = want;
    for (const { job, ranks, moving } of jobs)
      if (ranks.some((r) => r.vm === vm))
        yield {
          ...{ type: "want", job, cycle, step, phase, quietComplete: this.board.quietComplete(job) },
          ...(moving === undefined ? {} : { moving }),
        };
  }

  *#level(vm: string): Iterable<LevelMessage> {
    const jobs = this.#target.jobs.filter((j) => j.ranks.some((r) => r.vm === vm));
    yield* this.board.level(jobs.map((j) => j.job));
    yield* this.#wants(vm);
  }

  #vmsOf(job: string): Set<string> {
    return new Set(this.#target.jobs.find((j) => j.job === job)?.ranks.map((r) => r.vm) ?? []);
  }

  #onPost(vm: string, chunk: GuestPost): void {
    try {
      const why = this.board.post(vm, chunk);
      // The last one of each VM: a guest must not fill the table.
      if (why !== undefined) this.#refused.set(vm, why);
    } catch (error) {
      this.#events.failed(error);
      return;
    }
    this.#events.changed();
  }

  #onQuarantine(vm: string, error: SymvirtError): void {
    this.#events.trouble(error.message);
    // On the way back the guest gets one more chance, as its ranks must be told to run again.
    if (this.#restarted.has(vm)) return;
    this.#restarted.add(vm);
    this.#fleet.link(vm).start();
  }
}
