/**
 * The jobs and ranks of this VM, as their ranks say. Rebuilt from nothing after a restart: every rank
 * reconnects and repeats its hello, its state and its posts of the current step.
 */
import { type JobReport, MAX_RANKS_PER_VM, type RankReport } from "../protocol/messages.js";
import type { RankHello, RankPost, RankState } from "./rank-wire.js";
import { type Budget, compareSteps, StepBuffer, type StepPair } from "./step-buffer.js";

const MAX_JOBS = 16;
/** Of one user: who posts nonsense takes nothing from others. */
const MAX_POST_BYTES = 64 << 20;
/** With posts in memory at a time (the unit has MemoryMax). */
const MAX_POSTING_USERS = 4;
/** How long a rank that is gone stays in the report. */
const KEEP_ENDED_MS = 60_000;

/** What the table needs of a connection. */
export interface RankPeer {
  readonly pid: number;
  readonly uid: number;
  send(datagram: Buffer): void;
  close(): void;
}

export interface Rank<Peer extends RankPeer = RankPeer> {
  readonly job: string;
  readonly rank: number;
  readonly pid: number;
  /** Undefined once the connection has ended. */
  peer: Peer | undefined;
  /** What the rank said last; its `state` is what the rank said even after it was lost. */
  report: RankReport;
  ended: "lost" | "left" | undefined;
  endedAt: number;
  readonly posts: StepBuffer<RankPost>;
}

interface Job<Peer extends RankPeer> {
  readonly uid: number;
  readonly worldSize: number;
  readonly ranks: Map<number, Rank<Peer>>;
}

export class JobTable<Peer extends RankPeer = RankPeer> {
  readonly #jobs = new Map<string, Job<Peer>>();
  readonly #byPeer = new Map<Peer, Rank<Peer>>();
  readonly #postBudgets = new Map<number, Budget>();
  readonly #now: () => number;

  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  /** Registers a rank; returns the reason if it may not. The peer of an earlier connection of the same process is closed. */
  hello(peer: Peer, hello: RankHello): string | undefined {
    if (hello.pid !== peer.pid) return `hello of pid ${hello.pid} came from pid ${peer.pid}`;
    const job = this.#jobs.get(hello.job);
    if (job !== undefined) {
      if (peer.uid !== job.uid && peer.uid !== 0) return `job belongs to uid ${job.uid}, not ${peer.uid}`;
      if (job.worldSize !== hello.worldSize)
        return `job has ${job.worldSize} ranks, the hello says ${hello.worldSize}`;
    }
    const known = job?.ranks.get(hello.rank);
    if (known?.peer !== undefined && known.pid !== hello.pid)
      return `rank ${hello.rank} is registered by pid ${known.pid}, which is connected`;
    if (known === undefined && !this.#makeRoom(job === undefined))
      return `no room: at most ${MAX_JOBS} jobs and ${MAX_RANKS_PER_VM} ranks`;
    this.#register(peer, hello, known);
    return undefined;
  }

  #register(peer: Peer, hello: RankHello, known: Rank<Peer> | undefined): void {
    let job = this.#jobs.get(hello.job);
    if (job === undefined) {
      job = { uid: peer.uid, worldSize: hello.worldSize, ranks: new Map() };
      this.#jobs.set(hello.job, job);
    }
    if (known !== undefined && known.pid === hello.pid) {
      const old = known.peer;
      if (old !== undefined) {
        this.#byPeer.delete(old);
        known.peer = undefined;
        old.close();
      }
      known.peer = peer;
      known.ended = undefined;
      known.report = { ...known.report, epoch: hello.epoch, tcpOnly: hello.tcpOnly };
      if (hello.inert) known.report = { ...known.report, state: "inert", detail: hello.reason };
      this.#byPeer.set(peer, known);
      return;
    }
    known?.posts.clear();
    const rank: Rank<Peer> = {
      job: hello.job,
      rank: hello.rank,
      pid: hello.pid,
      peer,
      report: firstReport(hello),
      ended: undefined,
      endedAt: 0,
      posts: new StepBuffer(this.#postBudget(job.uid)),
    };
    job.ranks.set(hello.rank, rank);
    this.#byPeer.set(peer, rank);
  }

  #postBudget(uid: number): Budget {
    for (const [user, { used }] of this.#postBudgets) {
      const hasJob = [...this.#jobs.values()].some((job) => job.uid === user);
      if (used === 0 && user !== uid && !hasJob) this.#postBudgets.delete(user);
    }
    const budget = this.#postBudgets.get(uid) ?? {
      used: 0,
      max: this.#postBudgets.size < MAX_POSTING_USERS ? MAX_POST_BYTES : 0,
    };
    this.#postBudgets.set(uid, budget);
    return budget;
  }

  rankOf(peer: Peer): Rank<Peer> | undefined {
    return this.#byPeer.get(peer);
  }

  /** Takes what a rank says of itself. True if anything but its counters is new. */
  state(peer: Peer, message: RankState): boolean {
    const rank = this.#byPeer.get(peer);
    if (rank === undefined) return false;
    const { type: _, ...said } = message;
    const before = withoutCounters(rank.report);
    rank.report = { ...rank.report, ...said };
    return before !== withoutCounters(rank.report);
  }

  /** Keeps a post for repetition. "old": of a step the host has left. Anything but "stored" is not forwarded. */
  post(
    peer: Peer,
    post: RankPost,
    current: StepPair | undefined,
  ): "stored" | "repeated" | "old" | "full" | "foreign" {
    const rank = this.#byPeer.get(peer);
    if (rank === undefined || post.rank !== rank.rank) return "foreign";
    if (current !== undefined && compareSteps(post, current) < 0) return "old";
    return rank.posts.put(post);
  }

  /**
   * The rank has left in order. Its connection may end now. Without `keep` a job is forgotten with its last rank; a host
   * that waits for it must see that it is over, though.
   */
  bye(peer: Peer, keep = false): void {
    this.#end(peer, "left", keep);
  }

  /** The connection has ended; without a bye before, the rank is lost. */
  closed(peer: Peer): void {
    this.#end(peer, "lost");
  }

  #end(peer: Peer, how: "lost" | "left", keep = false): void {
    const rank = this.#byPeer.get(peer);
    if (rank === undefined) return;
    this.#byPeer.delete(peer);
    rank.peer = undefined;
    rank.ended = how;
    rank.endedAt = this.#now();
    if (how === "left") rank.posts.clear();
    if (!keep) this.#dropFinished(rank.job);
  }

  /** Forgets the posts of steps before the one the host now wants. */
  advance(job: string, pair: StepPair): void {
    for (const rank of this.#jobs.get(job)?.ranks.values() ?? []) rank.posts.advance(pair);
  }

  /** Forgets ranks that ended a minute ago; true if the report has changed. */
  expire(): boolean {
    let changed = false;
    const limit = this.#now() - KEEP_ENDED_MS;
    for (const [id, job] of this.#jobs) {
      for (const rank of job.ranks.values()) {
        if (rank.ended === undefined || rank.endedAt > limit) continue;
        // A lost rank of a job that still runs is what is wrong with it: keep saying so.
        if (rank.ended === "lost" && isLive(job)) continue;
        this.#forget(job, rank);
        changed = true;
      }
      if (job.ranks.size === 0) this.#jobs.delete(id);
    }
    return changed;
  }

  /** Ranks with a connection. */
  *live(jobId?: string): Generator<Rank<Peer> & { peer: Peer }> {
    for (const rank of this.#byPeer.values()) {
      if (jobId !== undefined && rank.job !== jobId) continue;
      const { peer } = rank;
      if (peer !== undefined) yield rank as Rank<Peer> & { peer: Peer };
    }
  }

  /** Whether one of these ranks of the job is connected here. */
  hasAny(job: string, ranks: readonly number[]): boolean {
    const known = this.#jobs.get(job)?.ranks;
    return known !== undefined && ranks.some((rank) => known.get(rank)?.peer !== undefined);
  }

  /** Ranks of the job in all its VMs; undefined while none of them has registered here. */
  worldSize(job: string): number | undefined {
    return this.#jobs.get(job)?.worldSize;
  }

  reports(): JobReport[] {
    return Array.from(this.#jobs, ([job, { uid, worldSize, ranks }]) => ({
      job,
      uid,
      worldSize,
      ranks: Array.from(ranks.values(), (rank) => ({
        ...rank.report,
        state: rank.ended ?? rank.report.state,
      })).sort((a, b) => a.rank - b.rank),
    }));
  }

  #dropFinished(id: string): void {
    const job = this.#jobs.get(id);
    if (job === undefined || isLive(job)) return;
    // All left in order: the job is over. With lost ranks the host shall see them for a while.
    for (const rank of job.ranks.values()) if (rank.ended === "lost") return;
    for (const rank of job.ranks.values()) this.#forget(job, rank);
    this.#jobs.delete(id);
  }

  #forget(job: Job<Peer>, rank: Rank<Peer>): void {
    rank.posts.clear();
    job.ranks.delete(rank.rank);
  }

  /** Makes room for one rank (and one job), at the cost of what has ended longest ago. */
  #makeRoom(newJob: boolean): boolean {
    let ranks = 0;
    for (const job of this.#jobs.values()) ranks += job.ranks.size;
    while (ranks >= MAX_RANKS_PER_VM) {
      const victim = this.#oldestEnded();
      if (victim === undefined) return false;
      this.#forget(victim.job, victim.rank);
      ranks--;
    }
    for (const [id, job] of this.#jobs) if (job.ranks.size === 0) this.#jobs.delete(id);
    if (!newJob || this.#jobs.size < MAX_JOBS) return true;
    for (const [id, job] of this.#jobs) {
      if (isLive(job)) continue;
      for (const rank of job.ranks.values()) this.#forget(job, rank);
      this.#jobs.delete(id);
      return true;
    }
    return false;
  }

  #oldestEnded(): { job: Job<Peer>; rank: Rank<Peer> } | undefined {
    let found: { job: Job<Peer>; rank: Rank<Peer> } | undefined;
    for (const job of this.#jobs.values())
      for (const rank of job.ranks.values())
        if (rank.ended !== undefined && (found === undefined || rank.endedAt < found.rank.endedAt))
          found = { job, rank };
    return found;
  }
}

/** What grows with every message says nothing new by growing. */
function withoutCounters({ openib: _, tcp: __, registrations: ___, ...rest }: RankReport): string {
  return JSON.stringify(rest);
}

function isLive(job: Job<RankPeer>): boolean {
  for (const rank of job.ranks.values()) if (rank.ended === undefined) return true;
  return false;
}

function firstReport(hello: RankHello): RankReport {
  const none = { sentFragments: 0, receivedFragments: 0, sentBytes: 0, receivedBytes: 0 };
  return {
    rank: hello.rank,
    pid: hello.pid,
    state: hello.inert ? "inert" : "init",
    route: "none",
    epoch: hello.epoch,
    cycle: 0,
    step: 0,
    error: 0,
    detail: hello.reason,
    tcpOnly: hello.tcpOnly,
    openDescriptors: 0,
    registrations: 0,
    windows: 0,
    wholeOnly: false,
    timings: { late: 0, drain: 0, teardown: 0, held: 0, load: 0, connect: 0 },
    openib: none,
    tcp: none,
  };
}
