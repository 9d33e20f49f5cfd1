import { spawn } from "node:child_process";
import { readdirSync, statSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import {
  ANNOUNCE_SESSION,
  type GuestPeers,
  type GuestPost,
  type GuestSample,
  type Want,
} from "../../src/protocol/messages.js";
import {
  AgentBench,
  BYE,
  datagram,
  type FakeHost,
  type FakeRank,
  helloDatagram,
  peersDatagram,
  postDatagram,
  ROUTE,
  STATE,
  stateDatagram,
  until,
} from "./agent-fixtures.js";

const SESSION = "0123456789abcdef";
const OTHER = "fedcba9876543210";

let bench: AgentBench;
let host: FakeHost;

beforeEach(async () => {
  bench = new AgentBench();
  host = await bench.host();
  bench.start();
});
afterEach(() => bench.close());

function want(session: string, cycle: number, step: number, phase: Want["phase"] = "park"): Want {
  return { type: "want", session, job: "job1", cycle, step, phase, quietComplete: false };
}

function board(session: string, cycle: number, step: number, rank: number, text: string) {
  const data = Buffer.from(text).toString("base64");
  return {
    ...({ type: "board", session, job: "job1", cycle, step, key: "quiet", rank, offset: 0 } as const),
    total: text.length,
    data,
  };
}

const posts = () => host.lines.filter((l): l is GuestPost => l.type === "post");
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

describe("session with the host", () => {
  it("announces itself, answers hello with hello and then state", async () => {
    await until("the announcement", () => host.lines[0]);
    expect(host.lines[0]).toMatchObject({ type: "hello", session: ANNOUNCE_SESSION, v: 1 });
    const state = await host.hello(SESSION);
    expect(state).toMatchObject({ seq: 1, answer: 0, jobs: [] });
    expect(host.lines.map((l) => l.type)).toEqual(["hello", "hello", "state"]);
  });

  it("repeats hello and state when the host repeats its hello, and starts anew for a new session", async () => {
    await host.hello(SESSION);
    host.clear();
    host.send({ type: "hello", v: 1, session: SESSION });
    expect(await host.state(() => true)).toMatchObject({ session: SESSION, seq: 2 });
    host.send({ type: "hello", v: 1, session: OTHER });
    expect(await host.state((s) => s.session === OTHER)).toMatchObject({ seq: 1 });
  });

  it("drops lines of another session, garbage, bad JSON, and a line of 10 MB, and goes on", async () => {
    await host.hello(SESSION);
    const rank = await bench.join();
    host.send(want(OTHER, 9, 9));
    host.sendRaw(Buffer.from('\u0000\u0001garbage\n{"type":"want"}\n{]\n{"type":"exec","cmd":"sh"}\n'));
    host.sendRaw(Buffer.from(`${"[".repeat(100_000)}\n`));
    host.sendRaw(Buffer.concat([Buffer.alloc(10 << 20, 0x61), Buffer.from("\n")]));
    host.send(want(SESSION, 1, 1));
    await until("the want", () => rank.of(17)[0]);
    expect(rank.of(17).map((w) => [w.cycle, w.step])).toEqual([[1, 1]]);
  });

  it("connects again when the host end is gone, and announces itself to the new one", async () => {
    await host.hello(SESSION);
    const rank = await bench.join();
    host.send(want(SESSION, 4, 1));
    await until("the want", () => rank.of(17)[0]);
    host.clear();
    host.disconnect();
    const state = await host.hello(OTHER);
    expect(state.jobs[0]?.ranks[0]).toMatchObject({ rank: 0, state: "init" });
    expect(host.connections).toBe(2);
    // The old host's want is void: a rank that comes now gets none.
    const second = await bench.join({ rank: 1 });
    await pause(50);
    expect(second.of(17)).toEqual([]);
  });
});

describe("registration of ranks", () => {
  it("reports a rank and its state, and coalesces a burst into few lines", async () => {
    await host.hello(SESSION);
    const rank = await bench.join({ rank: 1 });
    host.clear();
    for (let i = 1; i <= 100; i++) rank.say({ sentBytes: i, epoch: 3, step: i });
    const state = await host.state((s) => s.jobs[0]?.ranks[0]?.openib.sentBytes === 100);
    expect(state.jobs[0]).toMatchObject({ job: "job1", uid: process.getuid?.(), worldSize: 2 });
    expect(state.jobs[0]?.ranks[0]).toMatchObject({ rank: 1, state: "running", route: "openib", epoch: 3 });
    expect(host.lines.length).toBeLessThan(15);
  });

  it("tells lost from left, also when the rank closes with datagrams unread", async () => {
    await host.hello(SESSION);
    const [a, b, c] = [
      await bench.join({ worldSize: 3 }),
      bench.connect(),
      await bench.join({ rank: 2, worldSize: 3 }),
    ];
    c.say({});
    // Never reads its WELCOME: the kernel tells the agent of a reset before it hands out the bye.
    b.send(helloDatagram({ rank: 1, worldSize: 3 }));
    b.send(BYE);
    b.close();
    a.close();
    const state = await host.state(
      (s) => s.jobs[0]?.ranks.map((r) => r.state).join() === "lost,left,running",
    );
    expect(state.jobs[0]?.ranks.map((r) => r.rank)).toEqual([0, 1, 2]);
    // The last one leaves in order, but one was lost: the job stays in the report.
    c.send(BYE);
    await host.state((s) => s.jobs[0]?.ranks.map((r) => r.state).join() === "lost,left,left");
  });

  it("forgets a job all of whose ranks have left", async () => {
    await host.hello(SESSION);
    const rank = await bench.join();
    await host.state((s) => s.jobs.length === 1);
    host.clear();
    rank.send(BYE);
    await host.state((s) => s.jobs.length === 0);
    // Kept by the rank it would be one descriptor of the agent's for each time it says so.
    await until("the agent to close it", () => rank.closed);
  });

  it("tells a host that wants something of a job that it is over", async () => {
    await host.hello(SESSION);
    const rank = await bench.join();
    const { jobs } = await host.state((s) => s.jobs.length === 1);
    host.send({ ...want(SESSION, 1, 1), job: jobs[0]?.job ?? "" });
    await until("the want", () => rank.of(17)[0]);
    rank.send(BYE);
    await host.state((s) => s.jobs[0]?.ranks[0]?.state === "left");
  });

  it("registers an inert rank with its reason", async () => {
    await host.hello(SESSION);
    await bench.join({ flags: 1, reason: "pml is ucx" });
    const state = await host.state((s) => s.jobs.length === 1);
    expect(state.jobs[0]?.ranks[0]).toMatchObject({ state: "inert", detail: "pml is ucx" });
  });

  it("refuses a pid that is not the peer's", async () => {
    const rank = bench.connect();
    rank.send(helloDatagram({ pid: 1 }));
    expect(await rank.rejection()).toMatch(/hello of pid 1 came from pid/);
  });

  it("refuses a world size that differs from the job's", async () => {
    await bench.join();
    const rank = bench.connect();
    rank.send(helloDatagram({ rank: 1, worldSize: 5 }));
    expect(await rank.rejection()).toMatch(/2 ranks, the hello says 5/);
  });

  it("replaces the connection of the same process, without calling it lost", async () => {
    await host.hello(SESSION);
    const old = await bench.join();
    old.say({ state: STATE.parked, route: ROUTE.none });
    await host.state((s) => s.jobs[0]?.ranks[0]?.state === "parked");
    host.clear();
    const again = await bench.join();
    await until("the end of the old connection", () => old.closed);
    again.say({ state: STATE.parked, route: ROUTE.none, detail: "again" });
    await host.state((s) => s.jobs[0]?.ranks[0]?.detail === "again");
    expect(host.lines.some((l) => l.type === "state" && l.jobs[0]?.ranks[0]?.state === "lost")).toBe(false);
  });

  it("does not let another process take the place of a live rank, but of a lost one", async () => {
    await host.hello(SESSION);
    const rank = await bench.join();
    const thief = await otherProcess(bench.socket, 0);
    expect(thief).toMatch(/registered by pid \d+, which is connected/);
    rank.close();
    await host.state((s) => s.jobs[0]?.ranks[0]?.state === "lost");
    expect(await otherProcess(bench.socket, 0)).toBe("welcome");
  });

  it("lets only the job's uid and root register its ranks", async (context) => {
    if (process.getuid?.() !== 0) context.skip("needs root to become another user");
    await host.hello(SESSION);
    // The first rank is of uid 65534, so the job is its.
    await withOtherUid(bench.socket, "job1", 0, async (first) => {
      expect(first).toBe("welcome");
      expect(await otherProcess(bench.socket, 1, 65533)).toMatch(/job belongs to uid 65534, not 65533/);
      const root = await bench.join({ rank: 1 });
      expect(root.closed).toBe(false);
      await host.state((s) => s.jobs[0]?.uid === 65534 && s.jobs[0].ranks.length === 2);
    });
  });

  it("keeps its socket open to all users and its folder closed", () => {
    expect(statSync(bench.socket).mode & 0o777).toBe(0o666);
    expect(statSync(bench.socket.replace(/\/[^/]*$/, "")).mode & 0o777).toBe(0o755);
  });
});

describe("hostile ranks", () => {
  const bad: [string, Buffer, RegExp][] = [
    ["garbage", Buffer.from("GET / HTTP/1.0\r\n\r\nxxxxxxxxxxxxxxxx"), /bad magic/],
    ["a short datagram", Buffer.alloc(5), /shorter than a header/],
    ["another version", datagram(1, Buffer.alloc(280), { version: 2 }), /version 2/],
    ["an oversize datagram", Buffer.alloc(40_000), /longer than 32768/],
    ["a wrong length field", helloDatagram().subarray(0, 200), /length field/],
    ["state before hello", datagram(2, Buffer.alloc(296)), /first datagram must be a hello/],
    ["a message of the agent", datagram(17, Buffer.alloc(8)), /not for the agent/],
    ["a job id with a slash", helloDatagram({ job: "../etc" }), /job id/],
    ["an endless job id", helloDatagram({ job: "x".repeat(64) }), /not NUL-terminated/],
    ["rank beyond world", helloDatagram({ rank: 2 }), /not below world size/],
    ["an absurd world", helloDatagram({ worldSize: 1 << 20 }), /out of range/],
  ];
  it.each(bad)("are rejected for %s", async (_, bytes, reason) => {
    const rank = bench.connect();
    rank.send(bytes);
    expect(await rank.rejection()).toMatch(reason);
    await bench.join();
  });

  const badPosts: [string, Buffer, RegExp][] = [
    ["another rank's part", postDatagram({ key: "k", rank: 1, data: Buffer.from("x") }), /post for rank 1/],
    ["a key with a slash", postDatagram({ key: "a/b", rank: 0, data: Buffer.from("x") }), /board key/],
    [
      "a chunk beyond its post",
      postDatagram({ key: "k", rank: 0, data: Buffer.alloc(9), offset: 2, total: 10 }),
      /outside/,
    ],
    [
      "too large a post",
      postDatagram({ key: "k", rank: 0, data: Buffer.alloc(1), total: (1 << 20) + 1 }),
      /larger than/,
    ],
    [
      "too large a chunk",
      postDatagram({ key: "k", rank: 0, data: Buffer.alloc(24_577), total: 30_000 }),
      /larger than/,
    ],
    ["a second hello", helloDatagram(), /second hello/],
  ];
  it.each(badPosts)("lose their connection for %s", async (_, bytes, reason) => {
    const rank = await bench.join();
    rank.send(bytes);
    expect(await rank.rejection()).toMatch(reason);
  });

  it("cannot make the agent keep more posts than it has room for", async () => {
    const rank = await bench.join();
    let refused = false;
    for (let i = 0; i < 5000 && !refused; i++) {
      const bytes = postDatagram({ key: `k${i}`, rank: 0, data: Buffer.alloc(24_000) });
      try {
        await until("room in the socket", () => refused || rank.trySend(bytes));
      } catch {
        break;
      }
      refused = rank.closed;
    }
    expect(await rank.rejection()).toMatch(/more memory/);
  });

  it("have 2 s to say hello, and 8 connections a uid meanwhile", async () => {
    const silent = Array.from({ length: 8 }, () => bench.connect());
    const ninth = bench.connect();
    expect(await ninth.rejection()).toMatch(/too many connections/);
    const started = performance.now();
    for (const rank of silent) expect(await rank.rejection()).toMatch(/no hello within 2 s/);
    expect(performance.now() - started).toBeLessThan(4000);
    await bench.join();
  });

  it("cannot make the agent leak descriptors with 1000 connections", async () => {
    const open = () => readdirSync("/proc/self/fd").length;
    await bench.join();
    const before = open();
    for (let i = 0; i < 1000; i++) {
      const rank = bench.connect();
      const how = i % 3;
      if (how === 0) rank.send(Buffer.from("junk"));
      if (how === 1) rank.send(helloDatagram({ rank: 1 }));
      if (how === 1) await until("the welcome", () => rank.received.length > 0);
      rank.close();
      if (i % 4 === 0) await until("the server to catch up", () => open() <= before + 2);
    }
    await until("all descriptors closed", () => open() <= before);
  });

  it("cannot put control characters into the report", async () => {
    await host.hello(SESSION);
    const rank = await bench.join();
    rank.say({ detail: "\u001b[2Jclear\n" });
    const state = await host.state((s) => (s.jobs[0]?.ranks[0]?.detail ?? "") !== "");
    expect(state.jobs[0]?.ranks[0]?.detail).toBe("?[2Jclear?");
  });
});

describe("relay", () => {
  it("brings posts again to a host that asks within the session, and those of a rank that connects anew", async () => {
    await host.hello(SESSION);
    const rank = await bench.join();
    host.send(want(SESSION, 1, 1));
    await until("the want", () => rank.of(17).length === 1);
    rank.send(postDatagram({ key: "flip", rank: 0, data: Buffer.from("abc"), offset: 0, total: 3 }));
    await until("the post", () => posts().length === 1);
    host.send({ type: "hello", v: 1, session: SESSION });
    await until("the post again", () => posts().length === 2);
    rank.close();
    await bench.join();
    await until("the post of the new connection", () => posts().length === 3);
    expect(new Set(posts().map((p) => JSON.stringify(p))).size).toBe(1);
  });

  it("brings posts to the host and boards and wants to every local rank", async () => {
    await host.hello(SESSION);
    const ranks = [await bench.join(), await bench.join({ rank: 1 })];
    host.send(want(SESSION, 1, 1));
    await until("the wants", () => ranks.every((r) => r.of(17).length === 1));
    const blob = Buffer.from(Array.from({ length: 60_000 }, (_, i) => i & 0xff));
    for (let at = 0; at < blob.length; at += 24_576)
      ranks[1]?.send(
        postDatagram({
          key: "modex",
          rank: 1,
          data: blob.subarray(at, at + 24_576),
          offset: at,
          total: blob.length,
        }),
      );
    await until("three chunks", () => posts().length === 3);
    expect(Buffer.concat(posts().map((p) => Buffer.from(p.data, "base64"))).equals(blob)).toBe(true);
    expect(posts()[0]).toMatchObject({
      session: SESSION,
      job: "job1",
      cycle: 1,
      step: 1,
      key: "modex",
      rank: 1,
      total: 60_000,
    });
    host.send(board(SESSION, 1, 1, 0, "zero"));
    host.send(board(SESSION, 1, 1, 1, ""));
    for (const rank of ranks) {
      await until("both parts", () => rank.of(18).length === 2);
      const [first, empty] = rank.of(18);
      expect(first?.body.toString("latin1", 0, 5)).toBe("quiet");
      expect(first?.body.toString("latin1", 40)).toBe("zero");
      expect(empty?.body.readUInt32LE(24)).toBe(1);
      expect(empty?.body.length).toBe(40);
    }
  });

  it("ignores older wants and boards, drops older posts", async () => {
    await host.hello(SESSION);
    const rank = await bench.join();
    host.send(want(SESSION, 2, 3));
    host.send(want(SESSION, 2, 2));
    host.send(want(SESSION, 1, 9));
    host.send(board(SESSION, 2, 2, 0, "old"));
    host.send(want(SESSION, 2, 4, "run-openib"));
    await until("the last want", () => rank.of(17).some((w) => w.step === 4));
    expect(rank.of(17).map((w) => w.step)).toEqual([3, 4]);
    expect(rank.of(18)).toEqual([]);
    rank.send(postDatagram({ key: "k", rank: 0, data: Buffer.from("old"), cycle: 2, step: 3 }));
    rank.send(postDatagram({ key: "k", rank: 0, data: Buffer.from("new"), cycle: 2, step: 4 }));
    await until("a post", () => posts().length > 0);
    expect(posts().map((p) => Buffer.from(p.data, "base64").toString())).toEqual(["new"]);
  });

  it("tells a reconnecting rank the boards of the step and then the want", async () => {
    await host.hello(SESSION);
    const rank = await bench.join();
    host.send(want(SESSION, 1, 1));
    host.send(board(SESSION, 1, 1, 0, "stale"));
    host.send(want(SESSION, 1, 2));
    host.send(board(SESSION, 1, 2, 0, "a"));
    host.send(board(SESSION, 1, 2, 1, "b"));
    host.send(board(SESSION, 1, 2, 1, "b"));
    await until("everything", () => rank.received.length >= 7);
    rank.close();
    const again = await bench.join();
    await until("the replay", () => again.of(17).length === 1);
    expect(again.received.map((m) => m.type)).toEqual([16, 18, 18, 17]);
    expect(again.of(18).map((m) => m.body.toString("latin1", 40))).toEqual(["a", "b"]);
    expect(again.of(17)[0]).toMatchObject({ cycle: 1, step: 2 });
    expect(again.of(17)[0]?.body.readUInt32LE(0)).toBe(3);
  });

  it("keeps a want for ranks that come later", async () => {
    await host.hello(SESSION);
    host.send(want(SESSION, 1, 1));
    host.send({ type: "query", session: SESSION, id: 1 });
    await host.state((s) => s.answer === 1);
    const rank = await bench.join();
    await until("the want", () => rank.of(17)[0]);
  });

  it("repeats the posts of the current step to a new session", async () => {
    await host.hello(SESSION);
    const rank = await bench.join();
    host.send(want(SESSION, 1, 2));
    await until("the want", () => rank.of(17)[0]);
    rank.send(postDatagram({ key: "quiet", rank: 0, data: Buffer.from("p"), cycle: 1, step: 2 }));
    await until("the post", () => posts().length === 1);
    host.clear();
    host.send({ type: "hello", v: 1, session: OTHER });
    await until("the post again", () => posts().length === 1);
    expect(posts()[0]).toMatchObject({ session: OTHER, key: "quiet", cycle: 1, step: 2 });
    // A state may have been on its way in the old session.
    const types = host.lines.map((l) => l.type);
    expect(types.slice(types.indexOf("hello"))).toEqual(["hello", "state", "post"]);
  });

  it("slows the ranks down when the host does not read, and loses nothing", async () => {
    await host.hello(SESSION);
    const rank = await bench.join();
    host.socket.pause();
    let sent = 0;
    // 24 MB of posts, each of which replaces the one before in the agent's memory.
    await pause(20);
    let stalled = false;
    while (sent < 1000 && !stalled) {
      const bytes = postDatagram({ key: "k", rank: 0, data: Buffer.alloc(24_000, sent & 0xff) });
      try {
        await until("room", () => rank.trySend(bytes), 300);
        sent++;
      } catch {
        stalled = true;
      }
    }
    expect(stalled).toBe(true);
    host.socket.resume();
    await until("all that was sent", () => posts().length === sent);
  });
});

describe("query", () => {
  it("asks every rank and answers with fresh counters", async () => {
    await host.hello(SESSION);
    const ranks = [await bench.join(), await bench.join({ rank: 1 })];
    for (const rank of ranks) rank.say({ sentBytes: 1 });
    await host.state((s) => s.jobs[0]?.ranks.filter((r) => r.openib.sentBytes === 1).length === 2);
    host.clear();
    for (const [i, rank] of ranks.entries()) rank.current = stateDatagram({ sentBytes: 100 + i });
    host.send({ type: "query", session: SESSION, id: 77 });
    const state = await host.state((s) => s.answer === 77);
    expect(state.jobs[0]?.ranks.map((r) => r.openib.sentBytes)).toEqual([100, 101]);
  });

  it("answers after 300 ms with what it knows of a rank that is late", async () => {
    await host.hello(SESSION);
    await bench.join();
    await bench.join({ rank: 1, flags: 1 });
    const started = performance.now();
    host.send({ type: "query", session: SESSION, id: 5 });
    const state = await host.state((s) => s.answer === 5);
    expect(performance.now() - started).toBeGreaterThan(250);
    expect(performance.now() - started).toBeLessThan(2000);
    expect(state.jobs[0]?.ranks).toHaveLength(2);
  });
});

describe("query of peers", () => {
  const peersLines = () => host.lines.filter((l): l is GuestPeers => l.type === "peers");
  const told = () => peersLines().map((l) => [l.answer, l.rank, l.first, ...l.peers.map((p) => p.rank)]);
  const twoRanks = async () => {
    await host.hello(SESSION);
    const ranks = [await bench.join({ worldSize: 4 }), await bench.join({ rank: 1, worldSize: 4 })];
    for (const rank of ranks) rank.say({});
    return ranks as [FakeRank, FakeRank];
  };

  it("hands each rank's parts on as they come, and then the state", async () => {
    const [a, b] = await twoRanks();
    a.peers = [peersDatagram(0, 3, [1, 2]), peersDatagram(2, 3, [3])];
    b.peers = [peersDatagram(0, 3, [0, 2, 3])];
    host.send({ type: "query", session: SESSION, id: 9, peers: true });
    await host.state((s) => s.answer === 9);
    expect(told().filter(([, rank]) => rank === 0)).toEqual([
      [9, 0, 0, 1, 2],
      [9, 0, 2, 3],
    ]);
    expect(told().filter(([, rank]) => rank === 1)).toEqual([[9, 1, 0, 0, 2, 3]]);
    expect(peersLines()[0]?.peers[0]).toEqual({
      ...{ rank: expect.any(Number) as number, route: "openib", epoch: 0 },
      ...{ openib: { fragments: 0, bytes: 7 }, tcp: { fragments: 0, bytes: 0 } },
    });
    const after = host.lines.slice(host.lines.findIndex((l) => l.type === "state" && l.answer === 9));
    expect(after.filter((l) => l.type === "peers")).toEqual([]);
  });

  it("is not asked by a plain query, and what comes unasked goes nowhere", async () => {
    const [a, b] = await twoRanks();
    a.send(peersDatagram(0, 1, [1]));
    host.send({ type: "query", session: SESSION, id: 3 });
    await host.state((s) => s.answer === 3);
    expect([...a.of(21), ...b.of(21), ...told()]).toEqual([]);
  });

  it("answers without a rank that tells no peers, or dies meanwhile", async () => {
    const [a, b] = await twoRanks();
    a.peers = [peersDatagram(0, 1, [1])];
    host.send({ type: "query", session: SESSION, id: 4, peers: true });
    await host.state((s) => s.answer === 4);
    expect(told()).toEqual([[4, 0, 0, 1]]);
    host.clear();
    host.send({ type: "query", session: SESSION, id: 5, peers: true });
    await until("the question", () => b.of(21).length === 2);
    b.close();
    const state = await host.state((s) => s.answer === 5);
    expect(state.jobs[0]?.ranks[1]?.state).toBe("lost");
  });

  it("hands no part on that does not continue the answer, however many come", async () => {
    const [a, b] = await twoRanks();
    b.peers = [peersDatagram(0, 0, [])];
    const flood = Array.from({ length: 100 }, () => peersDatagram(0, 3, [1, 2]));
    a.peers = [peersDatagram(1, 3, [2, 3]), ...flood, peersDatagram(2, 3, [3]), ...flood];
    host.send({ type: "query", session: SESSION, id: 6, peers: true });
    await host.state((s) => s.answer === 6);
    expect(told().filter(([, rank]) => rank === 0)).toEqual([
      [6, 0, 0, 1, 2],
      [6, 0, 2, 3],
    ]);
  });

  it("cuts off a rank whose picture breaks a rule", async () => {
    const [a] = await twoRanks();
    a.send(peersDatagram(3, 2, [1]));
    expect(await a.rejection()).toContain("outside of their 2");
  });
});

describe("moving ranks", () => {
  const bitsOf = (body: Buffer) => {
    const bits = body.subarray(8);
    return Array.from({ length: 8 * bits.length }, (_, r) => r).filter(
      (r) => ((bits[r >> 3] ?? 0) & (1 << (r & 7))) !== 0,
    );
  };

  it("are told to every rank, also to one that comes later; whole-only is reported", async () => {
    await host.hello(SESSION);
    const first = await bench.join({ worldSize: 20 });
    first.say({ wholeOnly: true });
    await host.state((s) => s.jobs[0]?.ranks[0]?.wholeOnly === true);
    host.send({ ...want(SESSION, 1, 1, "run-tcp"), moving: [1, 9, 19] });
    await until("the want", () => first.of(17)[0]);
    const late = await bench.join({ rank: 1, worldSize: 20 });
    await until("the want again", () => late.of(17)[0]);
    for (const rank of [first, late]) expect(rank.of(17).map((m) => bitsOf(m.body))).toEqual([[1, 9, 19]]);
    host.send(want(SESSION, 1, 2, "run-tcp"));
    await until("the want of all", () => first.of(17).length === 2);
    expect(bitsOf(first.of(17)[1]?.body ?? Buffer.alloc(0))).toEqual([]);
  });

  it("beyond the job's world are not taken", async () => {
    await host.hello(SESSION);
    const rank = await bench.join({ worldSize: 2 });
    host.send({ ...want(SESSION, 1, 1, "run-tcp"), moving: [1, 2] });
    host.send({ ...want(SESSION, 1, 2, "run-tcp"), moving: [1] });
    await until("a want", () => rank.of(17)[0]);
    expect(rank.of(17).map((m) => m.step)).toEqual([2]);
  });
});

describe("sample", () => {
  const samples = () => host.lines.filter((l): l is GuestSample => l.type === "sample");

  it("tells every rank's fresh counters and its route, and nothing else", async () => {
    await host.hello(SESSION);
    const ranks = [await bench.join(), await bench.join({ rank: 1 })];
    for (const rank of ranks) rank.say({});
    await host.state((s) => s.jobs[0]?.ranks.filter((r) => r.state === "running").length === 2);
    for (const [i, rank] of ranks.entries()) rank.current = stateDatagram({ sentBytes: 100 + i });
    host.clear();
    host.send({ type: "sample", session: SESSION, id: 9 });
    const [sample] = await until("the sample", () => samples().length > 0 && samples());
    expect(sample?.answer).toBe(9);
    expect(sample?.ranks.map((r) => [r.job, r.rank, r.route, r.openib.sentBytes, r.tcp.sentBytes])).toEqual([
      ["job1", 0, "openib", 100, 0],
      ["job1", 1, "openib", 101, 0],
    ]);
    // Counters that grow are no news: a query's state follows at once, and no other state comes before it.
    host.send({ type: "query", session: SESSION, id: 10 });
    const state = await host.state((s) => s.answer === 10);
    expect(state.jobs[0]?.ranks.map((r) => r.openib.sentBytes)).toEqual([100, 101]);
    expect(host.lines.map((l) => l.type)).toEqual(["sample", "state"]);
  });

  it("leaves out a rank that is late: no old number is passed off as a new one", async () => {
    await host.hello(SESSION);
    const ranks = [await bench.join(), await bench.join({ rank: 1 })];
    for (const rank of ranks) rank.say({ sentBytes: 5 });
    await host.state((s) => s.jobs[0]?.ranks.filter((r) => r.openib.sentBytes === 5).length === 2);
    const [prompt, late] = ranks;
    if (prompt === undefined || late === undefined) throw new Error("two ranks were made");
    prompt.current = stateDatagram({ sentBytes: 6 });
    late.current = undefined;
    host.send({ type: "sample", session: SESSION, id: 1 });
    const [sample] = await until("the sample", () => samples().length > 0 && samples());
    expect(sample?.ranks.map((r) => [r.rank, r.openib.sentBytes])).toEqual([[0, 6]]);
  });

  it("does not wait for a rank that leaves, nor answer into another session", async () => {
    await host.hello(SESSION);
    const ranks = [await bench.join(), await bench.join({ rank: 1 })];
    for (const rank of ranks) rank.say({});
    await host.state((s) => s.jobs[0]?.ranks.filter((r) => r.state === "running").length === 2);
    for (const rank of ranks) rank.current = undefined;
    host.send({ type: "sample", session: SESSION, id: 1 });
    await until("the questions", () => ranks.every((r) => r.of(19).length === 1));
    for (const rank of ranks) rank.close();
    const [sample] = await until("the sample", () => samples().length > 0 && samples());
    expect(sample).toMatchObject({ answer: 1, ranks: [] });
    const again = await bench.join();
    again.current = undefined;
    host.send({ type: "sample", session: SESSION, id: 2 });
    await until("the question", () => again.of(19).length === 1);
    await host.hello(OTHER);
    // Answered when the rank's time is over; the sample's would have been over before.
    host.send({ type: "query", session: OTHER, id: 3 });
    await host.state((s) => s.answer === 3);
    expect(samples().map((s) => s.answer)).toEqual([1]);
  });
});

describe("release of the card", () => {
  it("is true only when every rank is parked", async () => {
    await host.hello(SESSION);
    const ranks = [await bench.join(), await bench.join({ rank: 1 })];
    for (const rank of ranks) rank.say({});
    host.send(want(SESSION, 1, 1));
    await until("the wants", () => ranks.every((r) => r.of(17).length === 1));
    const parked = { state: STATE.parked, route: ROUTE.none, cycle: 1, step: 1 };
    ranks[0]?.say(parked);
    const half = await host.state((s) => s.jobs[0]?.ranks[0]?.state === "parked");
    expect(half.released).toBe(false);
    ranks[1]?.say(parked);
    await host.state((s) => s.released && s.jobs[0]?.ranks[1]?.state === "parked");
    expect(
      host.lines.filter(
        (l) => l.type === "state" && l.released && l.jobs[0]?.ranks.some((r) => r.state !== "parked"),
      ),
    ).toEqual([]);
    host.clear();
    ranks[1]?.say({ state: STATE.opening, cycle: 1, step: 2 });
    expect((await host.state((s) => s.jobs[0]?.ranks[1]?.state === "opening")).released).toBe(false);
  });
});

describe("restart of the agent", () => {
  it("in the middle of a cycle: ranks and host tell it all again", async () => {
    await host.hello(SESSION);
    const rank = await bench.join();
    host.send(want(SESSION, 1, 1));
    await until("the want", () => rank.of(17)[0]);
    rank.say({ state: STATE.draining, cycle: 1, step: 1 });
    rank.send(postDatagram({ key: "quiet", rank: 0, data: Buffer.from("p") }));
    await until("the post", () => posts().length === 1);
    bench.agent?.close();
    await until("the rank sees it", () => rank.closed);
    host.clear();
    bench.start();
    // The rank is back before the host: its post must wait for the session.
    const again = await bench.join();
    again.say({ state: STATE.draining, cycle: 1, step: 1 });
    again.send(postDatagram({ key: "quiet", rank: 0, data: Buffer.from("p") }));
    await pause(50);
    const state = await host.hello(OTHER);
    expect(state.jobs[0]?.ranks[0]).toMatchObject({ state: "draining", cycle: 1, step: 1 });
    await until("the post again", () => posts().length === 1);
    // The host repeats itself, boards first.
    host.send(board(OTHER, 1, 1, 0, "p"));
    host.send(want(OTHER, 1, 1));
    await until("the want", () => again.of(17)[0]);
    expect(again.received.map((m) => m.type)).toEqual([16, 18, 17]);
  });

  it("replaces a stale socket and refuses a served one", () => {
    expect(() => bench.start()).toThrow(/Another agent serves/);
    bench.agent?.close();
    bench.start();
  });
});

const HELPER = fileURLToPath(new URL("./rank-helper.mjs", import.meta.url));

/** Registers rank `rank` of job1 from another process and reports "welcome" or the rejection. */
function otherProcess(socket: string, rank: number, uid?: number): Promise<string> {
  return withOtherUid(
    socket,
    "job1",
    rank,
    (answer) => Promise.resolve(answer),
    uid ?? process.getuid?.() ?? 0,
  );
}

/** The same, keeping the other process connected while `use` runs. */
async function withOtherUid<T>(
  socket: string,
  job: string,
  rank: number,
  use: (answer: string) => Promise<T>,
  uid = 65534,
): Promise<T> {
  // The bench's folder is its maker's only; the socket itself is for everybody.
  const { chmodSync } = await import("node:fs");
  chmodSync(bench.folder, 0o755);
  const child = spawn(process.execPath, [HELPER, socket, job, String(rank)], {
    stdio: ["pipe", "pipe", "inherit"],
    ...(uid === process.getuid?.() ? {} : { uid, gid: uid }),
  });
  try {
    const answer = await new Promise<string>((resolve, reject) => {
      let text = "";
      child.stdout.on("data", (chunk: Buffer) => {
        text += chunk.toString("utf8");
        if (text.endsWith("\n")) resolve(text.trim());
      });
      child.once("error", reject);
      child.once("exit", (code) => reject(new Error(`rank helper ended with ${code}: ${text}`)));
    });
    return await use(answer);
  } finally {
    const ended = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGKILL");
    await ended;
  }
}
