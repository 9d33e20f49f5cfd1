/**
 * The guest agent: joins the ranks of this VM, its cards and the host. It keeps nothing on disk; after
 * a restart the ranks, the kernel and the host tell it all again.
 */
import { readFileSync } from "node:fs";
import type { Logger } from "pino";
import type { BoardPart, GuestPost, Want } from "../protocol/messages.js";
import { loadAddon } from "./addon.js";
import { findHolders } from "./card-holders.js";
import { DeviceWatch } from "./device-watch.js";
import type { Card } from "./devices.js";
import { HostIntents } from "./host-intents.js";
import { HostLink } from "./host-link.js";
import { JobTable, type Rank } from "./job-table.js";
import { openHostPort } from "./open-host-port.js";
import { PostAttach } from "./post-attach.js";
import type { RankConnection } from "./rank-connection.js";
import { RankServer } from "./rank-server.js";
import { PeerQuery } from "./peer-query.js";
import {
  encodeQuery,
  encodeQueryPeers,
  encodeWelcome,
  type RankHello,
  type RankMessage,
  type RankPeers,
  type RankPost,
} from "./rank-wire.js";
import { ReleaseWatch, usesCard } from "./release-watch.js";
import { atMostEvery } from "./throttle.js";
import { TrafficSamples } from "./traffic-samples.js";

/** Changes within this time go to the host in one line. */
const COALESCE_MS = 20;
/** How long a query waits for the ranks' fresh counters. */
const QUERY_DEADLINE_MS = 300;
const MAX_QUERIES = 16;
const EXPIRE_MS = 5000;

export interface AgentOptions {
  port: string;
  socket: string;
  hooks: string;
  log: Logger;
  /** Something happened that ends the agent (the port belongs to another process). */
  failed: (error: unknown) => void;
  /** Other roots of the kernel's file systems, for tests. */
  sysfs?: string;
  proc?: string;
  rdma?: string;
}

interface Query {
  id: number;
  waiting: Set<RankConnection>;
  /** The ranks' pictures of their peers, when those were asked for. */
  peers: PeerQuery<RankConnection> | undefined;
  timer: NodeJS.Timeout;
}

export class Agent {
  readonly #log: Logger;
  readonly #jobs = new JobTable<RankConnection>();
  readonly #intents = new HostIntents();
  readonly #ranks: RankServer;
  readonly #release: ReleaseWatch;
  readonly #hooks: PostAttach;
  readonly #devices: DeviceWatch;
  readonly #host: HostLink;
  readonly #queries = new Set<Query>();
  readonly #samples = new TrafficSamples<RankConnection>({
    deadlineMs: QUERY_DEADLINE_MS,
    ended: (id, told) => this.#tellSample(id, told),
  });
  readonly #expiry: NodeJS.Timeout;
  readonly #sometimes = atMostEvery(1000);
  #stateTimer: NodeJS.Timeout | undefined;
  #lastState = "";
  #rankLogs = 0;
  #closed = false;

  /** Starts everything. Throws a SymvirtError (refused) if another agent has the socket. */
  constructor(options: AgentOptions) {
    const { log, sysfs = "/sys", proc = "/proc", rdma = "rdma" } = options;
    this.#log = log;
    const addon = loadAddon();
    // First of all, because only this can be refused.
    this.#ranks = new RankServer({
      path: options.socket,
      addon,
      log,
      events: {
        hello: (connection, hello) => this.#hello(connection, hello),
        message: (connection, message) => this.#rankMessage(connection, message),
        closed: (connection) => this.#rankClosed(connection),
      },
    });
    this.#release = new ReleaseWatch({
      findHolders: () => findHolders({ proc, sysfs, rdma }),
      awaited: () => this.#cycleIsOn(),
      changed: () => this.#touch(),
      log,
    });
    this.#hooks = new PostAttach({
      hooks: options.hooks,
      log,
      ended: () => {
        this.#devices.refresh();
        this.#touch();
      },
    });
    this.#devices = new DeviceWatch({ addon, sysfs, log, changed: (cards) => this.#cardsChanged(cards) });
    this.#hooks.update(this.#devices.cards);
    this.#host = new HostLink({
      openPort: (events) => openHostPort(options.port, addon, log, events),
      agentVersion: packageVersion(),
      bootId: readFileSync("/proc/sys/kernel/random/boot_id", "latin1").trim(),
      log,
      events: {
        session: () => this.#newSession(),
        again: () => this.#tellAgain(),
        want: (want) => this.#want(want),
        board: (part) => this.#board(part),
        query: (id, peers) => this.#query(id, peers),
        sample: (id) => this.#sample(id),
        congested: (congested) => this.#congested(congested),
        failed: options.failed,
      },
    });
    this.#expiry = setInterval(() => {
      this.#rankLogs = 0;
      if (this.#jobs.expire()) this.#touch();
    }, EXPIRE_MS);
  }

  /** Ends everything it started and removes the socket. Idempotent. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    clearInterval(this.#expiry);
    clearTimeout(this.#stateTimer);
    for (const query of this.#queries) clearTimeout(query.timer);
    this.#samples.clear();
    this.#hooks.close();
    this.#devices.close();
    this.#release.close();
    this.#host.close();
    this.#ranks.close();
  }

  // ---- ranks ---------------------------------------------------------------------------------

  #hello(connection: RankConnection, hello: RankHello): string | undefined {
    const refusal = this.#jobs.hello(connection, hello);
    if (refusal !== undefined) return refusal;
    const { rank, pid, job, libraryVersion, openmpiVersion, inert, reason } = hello;
    this.#log.info(
      {
        job,
        rank,
        pid,
        uid: connection.uid,
        libraryVersion,
        openmpiVersion,
        ...(inert ? { inert: reason } : {}),
      },
      "rank registered",
    );
    connection.send(encodeWelcome());
    for (const datagram of this.#intents.replay(job)) connection.send(datagram);
    // What it posted before it lost its connection may have been of a session that is over.
    for (const post of this.#jobs.rankOf(connection)?.posts.parts() ?? [])
      this.#host.post(guestPost(job, post));
    this.#ranksChanged();
    return undefined;
  }

  #rankMessage(connection: RankConnection, message: Exclude<RankMessage, RankHello>): void {
    const rank = this.#jobs.rankOf(connection);
    // Its connection was replaced by a newer one of the same process, or it has said bye.
    if (rank === undefined) return;
    switch (message.type) {
      case "state":
        if (this.#jobs.state(connection, message)) this.#ranksChanged();
        for (const query of this.#queries) this.#answered(query, connection);
        this.#samples.told(connection);
        break;
      case "peers":
        this.#peers(connection, rank, message);
        break;
      case "post":
        this.#post(connection, rank, message);
        break;
      case "bye":
        this.#log.info({ job: rank.job, rank: rank.rank }, "rank left");
        this.#jobs.bye(connection, this.#intents.step(rank.job) !== undefined);
        this.#gone(connection);
        this.#samples.gone(connection);
        this.#ranksChanged();
        // Nobody else would end it: a rank that only says so could keep as many as it likes.
        connection.close();
        break;
      case "log":
        // A rank that chatters must not fill the disk: the count is reset every few seconds.
        if (this.#rankLogs++ < 100)
          this.#log[message.level]({ job: rank.job, rank: rank.rank, pid: rank.pid }, message.text);
        break;
    }
  }

  #post(connection: RankConnection, rank: Rank<RankConnection>, post: RankPost): void {
    const outcome = this.#jobs.post(connection, post, this.#intents.step(rank.job));
    switch (outcome) {
      case "stored":
        this.#host.post(guestPost(rank.job, post));
        break;
      case "old":
      case "repeated":
        break;
      case "foreign":
        connection.reject(`post for rank ${post.rank} from rank ${rank.rank}`);
        break;
      case "full":
        connection.reject("posts of this VM take more memory than the agent gives them");
        break;
    }
  }

  #rankClosed(connection: RankConnection): void {
    const rank = this.#jobs.rankOf(connection);
    this.#jobs.closed(connection);
    if (rank === undefined || this.#closed) return;
    this.#log.warn(
      { job: rank.job, rank: rank.rank, pid: rank.pid },
      "rank lost: its connection ended without a bye",
    );
    this.#gone(connection);
    this.#samples.gone(connection);
    this.#ranksChanged();
  }

  #ranksChanged(): void {
    if (this.#anyRankUsesCard()) this.#release.void();
    else if (this.#cycleIsOn()) void this.#release.scan();
    this.#touch();
  }

  #anyRankUsesCard(): boolean {
    for (const rank of this.#jobs.live()) if (usesCard(rank.report)) return true;
    return false;
  }

  /** The host has asked for the card's release, or ranks are away from it. */
  #cycleIsOn(): boolean {
    if (this.#intents.wantsRelease((job, ranks) => this.#jobs.hasAny(job, ranks))) return true;
    for (const { report } of this.#jobs.live())
      if (["parked", "failed", "held"].includes(report.state)) return true;
    return false;
  }

  // ---- host ----------------------------------------------------------------------------------

  #newSession(): void {
    this.#intents.forget();
    for (const query of this.#queries) clearTimeout(query.timer);
    this.#queries.clear();
    this.#samples.clear();
    this.#sendFullState();
    this.#repeatPosts();
  }

  /** The host, in the same session, wants to hear it all once more: a line may have been lost. */
  #tellAgain(): void {
    // Large ones take their time on the port, and are not lost for that.
    const isIdle = this.#host.isIdle;
    this.#sendFullState();
    if (isIdle) this.#repeatPosts();
  }

  #repeatPosts(): void {
    for (const rank of this.#jobs.live())
      for (const post of rank.posts.parts()) this.#host.post(guestPost(rank.job, post));
  }

  #want(want: Want): void {
    const worldSize = this.#jobs.worldSize(want.job);
    const beyond = want.moving?.find((rank) => worldSize !== undefined && rank >= worldSize);
    if (beyond !== undefined) {
      this.#sometimes(() => this.#log.warn({ job: want.job, rank: beyond, worldSize }, "want not taken"));
      return;
    }
    const datagram = this.#intents.want(want);
    if (datagram === undefined) return;
    const { job, cycle, step, phase, moving } = want;
    this.#log.info(
      { job, cycle, step, phase, ...(moving === undefined ? {} : { moving }) },
      "the host wants",
    );
    this.#jobs.advance(job, want);
    for (const { peer } of this.#jobs.live(job)) peer.send(datagram);
    this.#ranksChanged();
  }

  #board(part: BoardPart): void {
    const datagram = this.#intents.board(part);
    if (typeof datagram === "string") {
      const { job, cycle, step, key } = part;
      if (datagram !== "old")
        this.#sometimes(() =>
          this.#log.warn({ job, cycle, step, key, why: datagram }, "board part not taken"),
        );
      return;
    }
    for (const { peer } of this.#jobs.live(part.job)) peer.send(datagram);
  }

  #query(id: number, peers: boolean): void {
    if (this.#queries.size >= MAX_QUERIES) {
      this.#sometimes(() => this.#log.warn({ id }, "too many queries at once"));
      return;
    }
    const query: Query = {
      id,
      waiting: new Set(),
      peers: peers ? new PeerQuery() : undefined,
      timer: setTimeout(() => this.#finish(query), QUERY_DEADLINE_MS),
    };
    this.#queries.add(query);
    for (const { peer, report } of this.#jobs.live()) {
      if (report.state === "inert") continue;
      query.waiting.add(peer);
      query.peers?.ask(peer);
      if (peers) peer.send(encodeQueryPeers());
      peer.send(encodeQuery());
    }
    this.#finishIfAnswered(query);
  }

  #answered(query: Query, connection: RankConnection): void {
    if (query.waiting.delete(connection)) this.#finishIfAnswered(query);
  }

  /** A part of a rank's picture goes to the host as it comes; the agent keeps none. */
  #peers(connection: RankConnection, rank: Rank<RankConnection>, { first, total, peers }: RankPeers): void {
    for (const query of this.#queries) {
      if (query.peers?.take(connection, { first, total, count: peers.length }) !== true) continue;
      this.#host.peers({ answer: query.id, job: rank.job, rank: rank.rank, first, total, peers });
      this.#finishIfAnswered(query);
    }
  }

  /** Nothing more comes from this connection. */
  #gone(connection: RankConnection): void {
    for (const query of this.#queries) {
      const waited = query.waiting.delete(connection);
      if (query.peers?.forget(connection) === true || waited) this.#finishIfAnswered(query);
    }
  }

  #finishIfAnswered(query: Query): void {
    if (query.waiting.size === 0 && (query.peers?.isComplete ?? true)) this.#finish(query);
  }

  #finish(query: Query): void {
    clearTimeout(query.timer);
    void this.#release.scan().then(() => {
      if (!this.#queries.delete(query)) return;
      // Asked whether this agent is there at all, it answers with something, new or not.
      if (query.id === 0) this.#sendFullState();
      else this.#sendState(query.id);
    });
  }

  #sample(id: number): void {
    const asked = [...this.#jobs.live()].filter((r) => r.report.state !== "inert").map((r) => r.peer);
    if (!this.#samples.ask(id, asked)) {
      this.#sometimes(() => this.#log.warn({ id }, "too many samples at once"));
      return;
    }
    const datagram = encodeQuery();
    for (const peer of asked) peer.send(datagram);
  }

  #tellSample(id: number, told: ReadonlySet<RankConnection>): void {
    const ranks = [...this.#jobs.live()]
      .filter(({ peer }) => told.has(peer))
      .map(({ job, rank, report: { route, openib, tcp } }) => ({ job, rank, route, openib, tcp }));
    this.#host.sample({ answer: id, ranks });
  }

  #congested(congested: boolean): void {
    this.#ranks.setPaused(congested);
    // What changed meanwhile was held back.
    if (!congested) this.#touch();
  }

  // ---- state ---------------------------------------------------------------------------------

  #cardsChanged(cards: readonly Card[]): void {
    this.#log.info({ cards }, "cards changed");
    this.#hooks.update(cards);
    if (this.#cycleIsOn()) void this.#release.scan();
    this.#touch();
  }

  #touch(): void {
    if (this.#closed || this.#stateTimer !== undefined) return;
    this.#stateTimer = setTimeout(() => {
      this.#stateTimer = undefined;
      if (!this.#host.congested) this.#sendState(0);
    }, COALESCE_MS);
  }

  /** The host may know nothing: say it all, new or not. */
  #sendFullState(): void {
    this.#lastState = "";
    this.#sendState(0);
  }

  /** Sends all that is so; an unasked state only if it says something new. */
  #sendState(answer: number): void {
    if (this.#closed || !this.#host.inSession) return;
    const state = {
      jobs: this.#jobs.reports(),
      devices: this.#devices.cards.map(({ ifindex: _, ...card }) => card),
      released: this.#release.released && !this.#anyRankUsesCard(),
      holders: this.#release.holders,
      hookError: this.#hooks.error,
    };
    const text = JSON.stringify(state);
    if (answer === 0 && text === this.#lastState) return;
    this.#lastState = text;
    this.#host.state({ answer, ...state });
  }
}

function guestPost(
  job: string,
  { cycle, step, key, rank, offset, total, data }: RankPost,
): Omit<GuestPost, "type" | "session"> {
  return { job, cycle, step, key, rank, offset, total, data: data.toString("base64") };
}

function packageVersion(): string {
  const text = readFileSync(new URL("../../package.json", import.meta.url), "utf8");
  const value: unknown = JSON.parse(text);
  if (typeof value === "object" && value !== null && "version" in value && typeof value.version === "string")
    return value.version;
  return "unknown";
}
