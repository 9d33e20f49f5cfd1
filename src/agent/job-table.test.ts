import { describe, expect, it } from "vitest";
import { HostIntents } from "./host-intents.js";
import { JobTable, type RankPeer } from "./job-table.js";
import type { RankHello } from "./rank-wire.js";
import { type Part, StepBuffer } from "./step-buffer.js";

let now = 0;
function table(): JobTable {
  now = 0;
  return new JobTable(() => now);
}

function peer(pid: number, uid = 1000): RankPeer & { closed: boolean } {
  return {
    pid,
    uid,
    closed: false,
    send: () => undefined,
    close() {
      this.closed = true;
    },
  };
}

function hello(rank: number, pid: number, extra: Partial<RankHello> = {}): RankHello {
  return {
    type: "hello",
    rank,
    worldSize: 4096,
    localRank: rank,
    pid,
    inert: false,
    tcpOnly: false,
    epoch: 1,
    job: "j",
    libraryVersion: "",
    openmpiVersion: "",
    reason: "",
    ...extra,
  };
}

const states = (jobs: JobTable) =>
  jobs.reports().map((j) => j.ranks.map((r) => `${r.rank}${r.state}`).join());

describe("JobTable", () => {
  it("takes at most 128 ranks, but forgets ended ones for new ones", () => {
    const jobs = table();
    const peers = Array.from({ length: 128 }, (_, i) => peer(i + 1));
    for (const [i, p] of peers.entries()) expect(jobs.hello(p, hello(i, i + 1))).toBeUndefined();
    expect(jobs.hello(peer(999), hello(200, 999))).toMatch(/no room/);
    const [first] = peers;
    if (first !== undefined) jobs.closed(first);
    expect(jobs.hello(peer(999), hello(200, 999))).toBeUndefined();
  });

  it("takes at most 16 jobs, but forgets ended ones for new ones", () => {
    const jobs = table();
    const peers = Array.from({ length: 16 }, (_, i) => peer(i + 1));
    for (const [i, p] of peers.entries())
      expect(jobs.hello(p, hello(0, i + 1, { job: `j${i}` }))).toBeUndefined();
    expect(jobs.hello(peer(50), hello(0, 50, { job: "more" }))).toMatch(/no room/);
    const [first] = peers;
    if (first !== undefined) jobs.closed(first);
    expect(jobs.hello(peer(50), hello(0, 50, { job: "more" }))).toBeUndefined();
    expect(jobs.reports()).toHaveLength(16);
  });

  it("lets root, and no other uid, join a user's job", () => {
    const jobs = table();
    jobs.hello(peer(1, 1000), hello(0, 1));
    expect(jobs.hello(peer(2, 1001), hello(1, 2))).toMatch(/belongs to uid 1000/);
    expect(jobs.hello(peer(3, 0), hello(1, 3))).toBeUndefined();
  });

  it("keeps a lost rank while its job lives and a minute longer, a left one a minute", () => {
    const jobs = table();
    const [a, b, c] = [peer(1), peer(2), peer(3)];
    jobs.hello(a, hello(0, 1));
    jobs.hello(b, hello(1, 2));
    jobs.hello(c, hello(2, 3));
    jobs.closed(a);
    jobs.bye(b);
    now = 100_000;
    expect(jobs.expire()).toBe(true);
    expect(states(jobs)).toEqual(["0lost,2init"]);
    jobs.closed(c);
    now += 59_000;
    jobs.expire();
    expect(states(jobs)).toEqual(["2lost"]);
    now += 2_000;
    jobs.expire();
    expect(states(jobs)).toEqual([]);
  });

  it("shows a rank that is back as it last was until it says more", () => {
    const jobs = table();
    const first = peer(1);
    jobs.hello(first, hello(0, 1));
    const none = { sentFragments: 0, receivedFragments: 0, sentBytes: 0, receivedBytes: 0 };
    const timings = { late: 0, drain: 0, teardown: 0, held: 0, load: 0, connect: 0 };
    jobs.state(first, {
      type: "state",
      cycle: 1,
      step: 1,
      state: "parked",
      route: "none",
      epoch: 2,
      error: 0,
      timings,
      openib: none,
      tcp: none,
      registrations: 0,
      windows: 0,
      wholeOnly: false,
      openDescriptors: 0,
      detail: "",
    });
    jobs.closed(first);
    expect(states(jobs)).toEqual(["0lost"]);
    jobs.hello(peer(1), hello(0, 1));
    expect(states(jobs)).toEqual(["0parked"]);
    // Another process in its place is another rank altogether.
    jobs.closed([...jobs.live()][0]?.peer ?? first);
    jobs.hello(peer(2), hello(0, 2));
    expect(states(jobs)).toEqual(["0init"]);
  });
});

describe("StepBuffer", () => {
  const part = (cycle: number, step: number, rank: number, bytes = 10): Part => ({
    cycle,
    step,
    key: "k",
    rank,
    offset: 0,
    data: Buffer.alloc(bytes),
  });

  it("keeps the newest pair only, each part once, and gives the budget back", () => {
    const budget = { used: 0, max: 1000 };
    const buffer = new StepBuffer(budget);
    expect(buffer.put(part(1, 2, 0))).toBe("stored");
    expect(buffer.put(part(1, 2, 0))).toBe("repeated");
    expect(budget.used).toBe(210);
    expect(buffer.put(part(1, 1, 0))).toBe("old");
    expect(buffer.put(part(0, 9, 0))).toBe("old");
    expect(buffer.put(part(1, 2, 1, 900))).toBe("full");
    expect(buffer.put(part(2, 0, 1, 500))).toBe("stored");
    expect([...buffer.parts()].map((p) => p.rank)).toEqual([1]);
    buffer.advance({ cycle: 2, step: 0 });
    expect([...buffer.parts()]).toHaveLength(1);
    buffer.advance({ cycle: 2, step: 1 });
    expect(budget.used).toBe(0);
  });
});

describe("HostIntents", () => {
  const session = "0123456789abcdef";
  const want = (job: string, step: number) =>
    ({ type: "want", session, job, cycle: 1, step, phase: "park", quietComplete: true }) as const;
  const board = (step: number, data: string, total = data.length) =>
    ({
      ...({ type: "board", session, job: "j", cycle: 1, key: "k", rank: 0, offset: 0 } as const),
      step,
      total,
      data: Buffer.from(data).toString("base64"),
    }) as const;

  it("replays the newest boards, then the want, whichever came first", () => {
    const intents = new HostIntents();
    expect(intents.board(board(2, "new"))).toBeInstanceOf(Buffer);
    expect(intents.want(want("j", 2))?.readUInt32LE(28)).toBe(1);
    expect(intents.want(want("j", 1))).toBeUndefined();
    expect(intents.board(board(1, "old"))).toBe("old");
    expect(intents.board(board(2, "beyond", 2))).toBe("invalid");
    expect(intents.board(board(2, "", 5))).toBe("invalid");
    expect(intents.replay("j").map((d) => d.readUInt16LE(6))).toEqual([18, 17]);
    expect(intents.wantsRelease(() => false)).toBe(true);
    intents.forget();
    expect(intents.replay("j")).toEqual([]);
    expect(intents.wantsRelease(() => true)).toBe(false);
  });

  it("wants the card free of the moving ranks only, and replays who they are", () => {
    const intents = new HostIntents();
    const here = (ranks: number[]) =>
      intents.wantsRelease((job, moving) => job === "j" && moving.some((r) => ranks.includes(r)));
    intents.want({ ...want("j", 1), phase: "run-tcp", moving: [1, 9] });
    expect([here([0, 2]), here([9])]).toEqual([false, true]);
    const [replayed] = intents.replay("j");
    expect(replayed?.subarray(32, 34)).toEqual(Buffer.from([0b10, 0b10]));
    intents.want({ ...want("j", 2), phase: "run-openib", moving: [1, 9] });
    expect(here([9])).toBe(false);
  });

  it("remembers 16 jobs, the latest", () => {
    const intents = new HostIntents();
    for (let i = 0; i < 20; i++) intents.want(want(`j${i}`, 1));
    expect(intents.replay("j3")).toEqual([]);
    expect(intents.replay("j4")).toHaveLength(1);
  });
});
