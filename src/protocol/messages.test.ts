import { describe, expect, it } from "vitest";
import { guestMessage, hostMessage, MAX_PEERS_PER_LINE, MAX_WORLD, rankReport } from "./messages.js";

const session = "0123456789abcdef";
const want = { type: "want", session, job: "j", cycle: 1, step: 1, phase: "run-tcp", quietComplete: false };
const takes = (message: object) => hostMessage.safeParse(message).success;

describe("want", () => {
  it("names the moving ranks in ascending order, or nobody", () => {
    expect(takes(want)).toBe(true);
    expect(takes({ ...want, moving: [0, 1, 7] })).toBe(true);
    expect(takes({ ...want, moving: [MAX_WORLD - 1] })).toBe(true);
    expect(takes({ ...want, moving: Array.from({ length: MAX_WORLD }, (_, i) => i) })).toBe(true);
  });

  it.each([
    ["none", []],
    ["one twice", [1, 1]],
    ["descending ranks", [2, 1]],
    ["a rank beyond every world", [MAX_WORLD]],
    ["a negative rank", [-1]],
    ["half a rank", [0.5]],
    ["a word", ["1"]],
    ["too many", Array.from({ length: MAX_WORLD + 1 }, (_, i) => i)],
  ])("is not valid with %s", (_, moving) => {
    expect(takes({ ...want, moving })).toBe(false);
  });
});

describe("query", () => {
  it("asks for peers with true only", () => {
    expect(takes({ type: "query", session, id: 1 })).toBe(true);
    expect(takes({ type: "query", session, id: 1, peers: true })).toBe(true);
    expect(takes({ type: "query", session, id: 1, peers: false })).toBe(false);
    expect(takes({ type: "query", session, id: 1, peers: 7 })).toBe(false);
  });
});

describe("peers", () => {
  const peer = {
    ...{ rank: 1, route: "openib", epoch: 1 },
    ...{ openib: { fragments: 1, bytes: 2 }, tcp: { fragments: 0, bytes: 0 } },
  };
  const peers = { type: "peers", session, answer: 1, job: "j", rank: 0, first: 0, total: 1, peers: [peer] };
  it("is strict and capped", () => {
    const said = (change: object) => guestMessage.safeParse({ ...peers, ...change }).success;
    expect(said({})).toBe(true);
    expect(said({ peers: Array(MAX_PEERS_PER_LINE).fill(peer), total: MAX_PEERS_PER_LINE })).toBe(true);
    expect(said({ peers: Array(MAX_PEERS_PER_LINE + 1).fill(peer) })).toBe(false);
    expect(said({ total: MAX_WORLD + 1 })).toBe(false);
    expect(said({ first: -1 })).toBe(false);
    expect(said({ rank: MAX_WORLD })).toBe(false);
    expect(said({ peers: [{ ...peer, route: "ib" }] })).toBe(false);
    expect(said({ peers: [{ ...peer, epoch: -1 }] })).toBe(false);
    expect(said({ peers: [{ ...peer, tcp: { fragments: 1, bytes: 2 ** 60 } }] })).toBe(false);
    expect(said({ peers: [{ ...peer, more: 1 }] })).toBe(false);
  });
});

describe("rank report", () => {
  const none = { sentFragments: 0, receivedFragments: 0, sentBytes: 0, receivedBytes: 0 };
  const report = {
    ...{ rank: 0, pid: 1, state: "running", route: "openib", epoch: 1, cycle: 0, step: 0, error: 0 },
    ...{
      detail: "",
      tcpOnly: false,
      openDescriptors: 0,
      registrations: 0,
      windows: 0,
      openib: none,
      tcp: none,
    },
    timings: { late: 0, drain: 0, teardown: 0, held: 0, load: 0, connect: 0 },
  };
  it("of an agent that knows nothing of moving ranks is of a job that changes as a whole", () => {
    expect(rankReport.parse(report).wholeOnly).toBe(true);
    expect(rankReport.parse({ ...report, wholeOnly: false }).wholeOnly).toBe(false);
    expect(rankReport.safeParse({ ...report, wholeOnly: 0 }).success).toBe(false);
  });
});
