/** A guest that speaks the agent's side of the protocol, with scripted ranks: no VM, no MPI. */
import type { Duplex } from "node:stream";
import { encodeLine, LineDecoder } from "../../src/protocol/framing.js";
import {
  type BoardPart,
  type DeviceReport,
  hostMessage,
  PROTOCOL_VERSION,
  type RankReport,
  type Want,
} from "../../src/protocol/messages.js";

const noTraffic = { sentFragments: 0, receivedFragments: 0, sentBytes: 0, receivedBytes: 0 };

export interface FakeRank {
  job: string;
  worldSize: number;
  report: RankReport;
  /** The card's BTL is down. */
  torn: boolean;
  /** Never reaches its safe point. */
  late: boolean;
  /** live: tcp does not reach a peer. */
  failLeave: boolean;
  /** Refuses to be held. */
  refuseHold: boolean;
  /** Steps of re-init that fail before one works. */
  failReinit: number;
  /** live: ranks of the job that run over tcp with everybody; all ranks of a job agree on them. */
  away: Set<number>;
  /** live: the change of routes that is on. */
  change: RouteChange | undefined;
}

interface RouteChange {
  kind: "leave" | "take-back" | "back";
  /** Who changes all routes. */
  moving: readonly number[];
  moves: boolean;
  /** The want named them, so the set "dropped" is used. */
  perPeer: boolean;
}

type At = { cycle: number; step: number; error: number; detail: string };

export class FakeGuest {
  readonly vm: string;
  readonly ranks: FakeRank[] = [];
  devices: DeviceReport[] = [];
  /** Somebody else who holds the card. */
  holders: { pid: number; command: string; what: string }[] = [];
  /** Says nothing at all, as a guest without an agent. */
  mute = false;
  /** How long its ranks take to tell their counters, in milliseconds. */
  answerMs = 0;
  /** live: ranks take long to tear down, see letTearDown. */
  stuckTearDown = false;
  /** Lies: instead of its own ranks' pictures of their peers it tells one of this rank. */
  tellsPeersFor: FakeRank | undefined;
  wants: Want[] = [];
  /** Ranks that never come to a safe point while they are to be held. */
  computing = new Set<number>();
  statesSeen: string[] = [];
  samplesAsked = 0;
  /** Claims in its samples that its ranks have this number. */
  samplesAsRank: number | undefined;
  /** Lines that the host does not get, by the key of the post; each once. */
  losesPosts = new Set<string>();
  /** Parts of this key that the guest does not get, once. */
  losesParts = new Set<string>();
  /** live: orders that a rank must never get. */
  violations: string[] = [];
  #socket: Duplex | undefined;
  #session = "";
  #seq = 0;
  #posts = new Map<string, { rank: FakeRank; key: string; cycle: number; step: number; more: string }>();
  #got = new Map<string, Set<number>>();
  readonly #failed = new Set<string>();

  constructor(vm: string) {
    this.vm = vm;
  }

  addRank(job: string, worldSize: number, rank: number): FakeRank {
    const added: FakeRank = {
      job,
      worldSize,
      torn: false,
      late: false,
      failLeave: false,
      refuseHold: false,
      failReinit: 0,
      away: new Set(),
      change: undefined,
      report: {
        rank,
        pid: 1000 + rank,
        state: "running",
        route: "openib",
        epoch: 1,
        cycle: 0,
        step: 0,
        error: 0,
        detail: "",
        tcpOnly: false,
        openDescriptors: 3,
        registrations: 0,
        windows: 0,
        wholeOnly: false,
        timings: { late: 0, drain: 0, teardown: 0, held: 0, load: 0, connect: 0 },
        openib: { ...noTraffic, sentBytes: 1000 },
        tcp: noTraffic,
      },
    };
    this.ranks.push(added);
    return added;
  }

  /** The host end of the channel is there. */
  serve(socket: Duplex): void {
    this.#socket?.destroy();
    this.#socket = socket;
    this.#session = "";
    const decoder = new LineDecoder();
    socket.on("error", () => undefined);
    socket.on("data", (chunk: Buffer) => {
      if (!this.mute) for (const line of decoder.push(chunk)) this.#line(line);
    });
  }

  /** All that its memory holds: what its ranks are and which cards it sees. */
  snapshot(): object {
    const ranks = this.ranks.map((r) => ({ ...r, away: [...r.away] }));
    return structuredClone({ ranks, devices: this.devices });
  }

  /** Its memory is that of a snapshot again; nobody talks to it. */
  load(snapshot: { ranks: (Omit<FakeRank, "away"> & { away: number[] })[]; devices: DeviceReport[] }): void {
    this.#socket?.destroy();
    this.#socket = undefined;
    this.#session = "";
    this.#posts.clear();
    this.#got.clear();
    this.#failed.clear();
    this.wants = [];
    const ranks = snapshot.ranks.map((r) => ({ ...r, away: new Set(r.away) }));
    this.ranks.splice(0, this.ranks.length, ...ranks);
    this.devices = snapshot.devices;
  }

  /** The channel breaks. */
  drop(): void {
    this.#socket?.end();
  }

  /** The agent was restarted: it knows nothing of the session and says so. */
  restart(): void {
    this.#session = "";
    this.#got.clear();
    this.wants = [];
    this.#send({ ...this.#hello(), session: "0000000000000000" });
  }

  raw(bytes: string | Buffer): void {
    this.#socket?.write(bytes);
  }

  get session(): string {
    return this.#session;
  }

  /** Tells the host what is so. */
  tell(answer = 0): void {
    if (this.#session === "" || this.mute) return;
    this.#seq++;
    const names = [...new Set(this.ranks.map((r) => r.job))];
    const busy = this.ranks.filter((r) => !r.torn && r.report.state !== "lost" && r.report.state !== "left");
    const holders = [
      ...this.holders,
      ...busy.map((r) => ({ pid: r.report.pid, command: "a.out", what: "/dev/infiniband/uverbs0" })),
    ];
    this.#send({
      type: "state",
      session: this.#session,
      seq: this.#seq,
      answer,
      jobs: names.map((job) => {
        const ranks = this.ranks.filter((r) => r.job === job);
        return { job, uid: 1000, worldSize: ranks[0]?.worldSize ?? 1, ranks: ranks.map((r) => r.report) };
      }),
      devices: this.devices,
      released: holders.length === 0,
      holders: holders.slice(0, 16),
      hookError: "",
    });
  }

  set(rank: FakeRank, change: Partial<RankReport>): void {
    rank.report = { ...rank.report, ...change };
    this.statesSeen.push(rank.report.state);
    this.tell();
  }

  /** A card's device appears (with its port up or not) or goes. */
  card(mac: string, port: "ACTIVE" | "DOWN" | "gone"): void {
    this.devices = this.devices.filter((d) => d.mac !== mac);
    if (port !== "gone")
      this.devices.push({
        pci: "0000:01:00.0",
        driver: "e1000e",
        netdev: "eth1",
        mac,
        verbs: "rxe0",
        port,
        gid: port === "ACTIVE" ? "fe80::1" : "",
      });
    this.tell();
  }

  post(rank: FakeRank, key: string, cycle: number, step: number, more = ""): void {
    this.#posts.set(`${rank.report.rank}/${key}/${cycle}/${step}`, { rank, key, cycle, step, more });
    this.#sendPost(rank, key, cycle, step, more);
  }

  #sendPost(rank: FakeRank, key: string, cycle: number, step: number, more: string): void {
    if (this.losesPosts.delete(key)) return;
    const bytes = Buffer.from(`rank ${rank.report.rank} under ${key}${more}`);
    // In two chunks, so that reassembly is used.
    for (const [offset, end] of [
      [0, 4],
      [4, bytes.length],
    ] as const)
      this.#send({
        type: "post",
        session: this.#session,
        job: rank.job,
        cycle,
        step,
        key,
        rank: rank.report.rank,
        offset,
        total: bytes.length,
        data: bytes.subarray(offset, end).toString("base64"),
      });
  }

  #hello() {
    return {
      type: "hello",
      v: PROTOCOL_VERSION,
      session: this.#session,
      agentVersion: "fake",
      hostname: this.vm,
      kernel: "6.1",
      bootId: "b",
    };
  }

  #send(message: object): void {
    if (this.#socket?.writable === true) this.#socket.write(encodeLine(message));
  }

  #sample(answer: number): void {
    if (this.mute) return;
    this.samplesAsked++;
    const ranks = this.ranks.map(({ job, report: { rank, route, openib, tcp } }) => ({
      ...{ job, rank: this.samplesAsRank ?? rank, route, openib, tcp },
    }));
    this.#send({ type: "sample", session: this.#session, answer, ranks });
  }

  #line(line: string): void {
    const message = hostMessage.parse(JSON.parse(line));
    if (message.type === "hello") {
      if (message.session !== this.#session) this.#got.clear();
      this.#session = message.session;
      this.#send(this.#hello());
      this.tell();
      for (const { rank, key, cycle, step, more } of this.#posts.values())
        this.#sendPost(rank, key, cycle, step, more);
      return;
    }
    if (message.session !== this.#session) return;
    if (message.type === "query") {
      if (message.peers === true)
        for (const rank of this.tellsPeersFor === undefined ? this.ranks : [this.tellsPeersFor])
          this.#tellPeers(rank, message.id);
      const { session, id } = message;
      if (this.answerMs === 0) this.tell(id);
      else setTimeout(() => session === this.#session && this.tell(id), this.answerMs);
    }
    if (message.type === "want") this.#want(message);
    if (message.type === "board" && !this.losesParts.delete(message.key)) this.#board(message);
    if (message.type === "sample") this.#sample(message.id);
  }

  #want(want: Want): void {
    this.wants.push(want);
    for (const rank of this.ranks.filter((r) => r.job === want.job)) {
      const { report } = rank;
      const isNew = want.cycle > report.cycle || want.step > report.step;
      if (!isNew || report.state === "lost" || report.state === "left") continue;
      if (rank.late && want.phase !== "run-openib") continue;
      if (want.phase === "hold" && this.computing.has(report.rank)) continue;
      const at = { cycle: want.cycle, step: want.step, error: 0, detail: "" };
      if (want.phase === "hold") {
        if (report.route !== "tcp" || !["running", "failed", "held"].includes(report.state))
          this.violations.push(`rank ${report.rank} is to be held over ${report.route}, ${report.state}`);
        if (rank.refuseHold)
          this.set(rank, { ...at, state: "failed", error: -16, detail: "cannot be held: it uses its card" });
        else this.set(rank, { ...at, state: "held" });
        continue;
      }
      if (want.phase === "run-tcp") {
        this.#leave(rank, at, want);
        continue;
      }
      const hasLeft = this.wants.some((w) => w.phase === "run-tcp" && w.cycle === want.cycle);
      if (want.phase === "run-openib" && (hasLeft || want.moving !== undefined || rank.away.size > 0)) {
        this.#comeBack(rank, at, want);
        continue;
      }
      if (want.phase === "park") {
        if (rank.torn) this.set(rank, { ...at, state: "parked", detail: "" });
        else {
          this.set(rank, { ...at, state: "draining" });
          this.post(rank, "quiet.0", want.cycle, want.step);
        }
      } else if (!rank.torn && !want.quietComplete) this.set(rank, { ...at, state: "running" });
      else {
        rank.torn = true;
        if (rank.failReinit > 0) {
          rank.failReinit--;
          this.set(rank, { ...at, state: "failed", error: -19, detail: "no usable port" });
          continue;
        }
        this.set(rank, { ...at, state: "opening" });
        this.post(rank, "modex", want.cycle, want.step);
      }
    }
  }

  #changeOf(rank: FakeRank, kind: RouteChange["kind"], { moving }: Want): RouteChange {
    const all = Array.from({ length: rank.worldSize }, (_, i) => i);
    const moves = moving?.includes(rank.report.rank) ?? true;
    return { kind, moving: moving ?? all, moves, perPeer: moving !== undefined };
  }

  /** live: flip, drain, quiet, tear down, all while the application runs. */
  #leave(rank: FakeRank, at: At, want: Want): void {
    const change = this.#changeOf(rank, "leave", want);
    // Every rank comes to the same answer, so either all take part in the sets or none.
    if (change.moving.every((r) => rank.away.has(r))) this.set(rank, { ...at, state: "running" });
    else if (rank.failLeave)
      this.set(rank, { ...at, state: "failed", error: -113, detail: "tcp does not reach rank 0" });
    else {
      rank.change = change;
      this.set(rank, change.moves ? { ...at, state: "draining", route: "tcp" } : { ...at, state: "running" });
      this.post(rank, "flip", at.cycle, at.step);
    }
  }

  #comeBack(rank: FakeRank, at: At, want: Want): void {
    const change = this.#changeOf(rank, want.quietComplete ? "back" : "take-back", want);
    const isAway = rank.away.has(rank.report.rank);
    if (want.quietComplete && !change.moving.some((r) => rank.away.has(r))) {
      if (rank.report.route !== "openib" && !isAway)
        this.violations.push(`rank ${rank.report.rank} is on its way off the card`);
      this.set(rank, { ...at, state: "running" });
      return;
    }
    rank.change = change;
    if (!want.quietComplete) {
      if (rank.torn && !isAway) this.violations.push(`rank ${rank.report.rank} has torn down before "quiet"`);
      const flips = change.moves && !isAway;
      this.set(rank, flips ? { ...at, state: "draining", route: "openib" } : { ...at, state: "running" });
    } else this.set(rank, { ...at, state: change.moves ? "opening" : "running" });
    if (change.perPeer) this.post(rank, "dropped", at.cycle, at.step);
    else this.#backBegins(rank);
  }

  #backBegins(rank: FakeRank): void {
    const { cycle, step } = rank.report;
    if (rank.change?.kind === "take-back") this.post(rank, "back.flip", cycle, step);
    else if (rank.failReinit > 0 && rank.change?.moves === true) {
      rank.failReinit--;
      rank.change = undefined;
      // The others learn of it by its part of the set.
      this.set(rank, { state: "failed", error: -19, detail: "no usable port" });
      this.post(rank, "blob", cycle, step, " failed");
    } else this.post(rank, "blob", cycle, step);
  }

  /** live: what a rank does when a set of its step is complete. */
  #step(rank: FakeRank, key: string): void {
    const { cycle, step } = rank.report;
    const { change } = rank;
    if (change === undefined) return;
    const then: Record<string, string> = {
      ...{ flip: "drained", drained: "quiet", blob: "handles", handles: "ready", ready: "back.flip" },
      "back.flip": "back.drained",
    };
    const next = then[key];
    if (next !== undefined) this.post(rank, next, cycle, step);
    else if (key === "back.drained") this.#backEnds(rank, change);
    else if (key === "quiet" && change.moves && !change.perPeer) this.#tearDown(rank, change);
    else if (key === "quiet") {
      this.post(rank, "dropped", cycle, step);
      if (!change.moves) this.#hasLeft(rank, change);
    } else if (key === "dropped" && change.kind === "leave") this.#tearDown(rank, change);
    else if (key === "dropped") this.#backBegins(rank);
  }

  #tearDown(rank: FakeRank, change: RouteChange): void {
    if (this.stuckTearDown) {
      rank.report = { ...rank.report, state: "closing" };
      return;
    }
    this.set(rank, { state: "closing" });
    rank.torn = true;
    this.#hasLeft(rank, change);
    this.set(rank, { state: "running", route: "tcp", openDescriptors: 0 });
  }

  #hasLeft(rank: FakeRank, change: RouteChange): void {
    for (const r of change.moving) rank.away.add(r);
    rank.change = undefined;
  }

  #backEnds(rank: FakeRank, change: RouteChange): void {
    rank.change = undefined;
    if (change.kind === "back") for (const r of change.moving) rank.away.delete(r);
    if (!change.moves || rank.away.has(rank.report.rank)) return;
    const epoch = rank.report.epoch + (rank.torn ? 1 : 0);
    rank.torn = false;
    this.set(rank, { state: "running", route: "openib", epoch, openDescriptors: 3 });
  }

  /** Ranks that have not torn down yet do so now. */
  letTearDown(): void {
    this.stuckTearDown = false;
    for (const rank of this.ranks)
      if (rank.report.state === "closing" && rank.change !== undefined) this.#tearDown(rank, rank.change);
  }

  /** Peers the rank reaches over openib. */
  overOpenib(rank: FakeRank): number[] {
    const all = Array.from({ length: rank.worldSize }, (_, i) => i);
    if (rank.away.has(rank.report.rank)) return [];
    return all.filter((r) => r !== rank.report.rank && !rank.away.has(r));
  }

  /** In two lines, so that reassembly is used. */
  #tellPeers(rank: FakeRank, answer: number): void {
    const near = this.overOpenib(rank);
    const peers = Array.from({ length: rank.worldSize }, (_, i) => i)
      .filter((peer) => peer !== rank.report.rank)
      .map((peer) => {
        const isNear = near.includes(peer);
        return {
          ...{ rank: peer, route: isNear ? "openib" : "tcp", epoch: 1 },
          openib: { fragments: 10, bytes: 1000 + peer },
          tcp: isNear ? { fragments: 0, bytes: 0 } : { fragments: 2, bytes: 50 },
        };
      });
    for (const [first, end] of [
      [0, 1],
      [1, peers.length],
    ] as const)
      if (first < end)
        this.#send({
          ...{ type: "peers", session: this.#session, answer, job: rank.job, rank: rank.report.rank },
          ...{ first, total: peers.length, peers: peers.slice(first, end) },
        });
  }

  #board(part: BoardPart): void {
    if (part.offset + Buffer.from(part.data, "base64").length < part.total) return;
    const id = `${part.job}/${part.cycle}/${part.step}/${part.key}`;
    if (Buffer.from(part.data, "base64").toString().endsWith(" failed")) this.#failed.add(id);
    const got = this.#got.get(id) ?? new Set();
    // Told again.
    if (got.has(part.rank)) return;
    got.add(part.rank);
    this.#got.set(id, got);
    const own = this.ranks.filter((r) => r.job === part.job && r.report.step === part.step);
    if (own.length === 0 || got.size < (own[0]?.worldSize ?? 0)) return;
    const isLive = own.some((r) => r.report.route !== "none") && !part.key.startsWith("quiet.");
    for (const rank of own) {
      if (this.#failed.has(id)) {
        if (rank.report.state === "opening")
          this.set(rank, { state: "failed", error: -125, detail: "another rank failed" });
      } else if (isLive && part.key !== "modex") this.#step(rank, part.key);
      else if (part.key.startsWith("quiet") && rank.report.state === "draining") {
        rank.torn = true;
        this.set(rank, { state: "parked", openDescriptors: 0, route: "none" });
      } else if (part.key === "modex" && rank.report.state === "opening") {
        rank.torn = false;
        this.set(rank, {
          state: "running",
          route: "openib",
          epoch: rank.report.epoch + 1,
          openDescriptors: 3,
        });
      }
    }
  }
}
