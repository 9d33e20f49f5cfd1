import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { GuestPost } from "../protocol/messages.js";
import { MAX_CHUNK_BYTES } from "../protocol/messages.js";
import { Board, type BoardOptions, type Part } from "./board.js";

function boardOf(options: Partial<BoardOptions> = {}) {
  const given: { job: string; parts: Part[] }[] = [];
  const quiet: string[] = [];
  const overflow: string[] = [];
  const board = new Board({
    cycle: 5,
    jobs: [{ job: "j", worldSize: 2 }],
    mayPost: (vm, _, rank) => vm === `vm${rank}`,
    onQuiet: (job) => quiet.push(job),
    onComplete: (job, parts) => given.push({ job, parts: [...parts()] }),
    onOverflow: (job) => overflow.push(job),
    ...options,
  });
  board.open(1);
  return { board, given, quiet, overflow };
}

function post(rank: number, text: string, change: Partial<GuestPost> = {}): GuestPost {
  const bytes = Buffer.from(text);
  return {
    type: "post",
    session: "0".repeat(32),
    job: "j",
    cycle: 5,
    step: 1,
    key: "modex",
    rank,
    offset: 0,
    total: bytes.length,
    data: bytes.toString("base64"),
    ...change,
  };
}

describe("board", () => {
  it("gives a set out once, when every rank has posted", () => {
    const { board, given } = boardOf();
    expect(board.post("vm0", post(0, "a"))).toBeUndefined();
    expect(given).toEqual([]);
    expect(board.missing("j", "modex")).toEqual([1]);
    board.post("vm1", post(1, "b"));
    board.post("vm1", post(1, "b"));
    expect(given).toHaveLength(1);
    expect(given[0]?.parts.map((p) => [p.rank, Buffer.from(p.data, "base64").toString()])).toEqual([
      [0, "a"],
      [1, "b"],
    ]);
    expect([...board.level(["j"])]).toEqual(given[0]?.parts);
  });

  it("takes empty posts as a barrier", () => {
    const { board, given } = boardOf();
    board.post("vm0", post(0, ""));
    board.post("vm1", post(1, ""));
    expect(given[0]?.parts.map((p) => [p.rank, p.total, p.data])).toEqual([
      [0, 0, ""],
      [1, 0, ""],
    ]);
  });

  it("the first post wins; other bytes are counted against the VM", () => {
    const { board, given } = boardOf();
    board.post("vm0", post(0, "aa"));
    expect(board.post("vm0", post(0, "ab"))).toContain("other bytes");
    expect(board.post("vm0", post(0, "aaa"))).toContain("other bytes");
    expect(board.conflicts("vm0")).toBe(2);
    board.post("vm1", post(1, "b"));
    expect(Buffer.from(given[0]?.parts[0]?.data ?? "", "base64").toString()).toBe("aa");
  });

  it("refuses ranks, jobs and steps that are not the sender's or not now's", () => {
    const { board } = boardOf();
    expect(board.post("vm0", post(1, "x"))).toContain("not its own");
    expect(board.post("vm0", post(0, "x", { job: "k" }))).toContain("not part of this cycle");
    expect(board.post("vm0", post(0, "x", { step: 2 }))).toContain("step 5/2");
    expect(board.post("vm0", post(0, "x", { cycle: 4 }))).toContain("step 4/1");
    expect(board.post("vm0", post(0, "xx", { total: 1 }))).toContain("does not fit");
    expect(board.post("vm0", post(0, "", { total: 4 }))).toContain("does not fit");
  });

  it("a step that was closed never completes, and quiet is decided once for the cycle", () => {
    const { board, given, quiet } = boardOf();
    board.post("vm0", post(0, "1", { key: "quiet.0" }));
    board.open(2);
    board.post("vm1", post(1, "1", { key: "quiet.0" }));
    expect(given).toEqual([]);
    expect(board.quietComplete("j")).toBe(false);
    board.post("vm0", post(0, "1", { key: "quiet.1", step: 2 }));
    board.post("vm1", post(1, "1", { key: "quiet.1", step: 2 }));
    expect(quiet).toEqual(["j"]);
    expect(board.quietComplete("j")).toBe(true);
    board.open(3);
    expect(board.quietComplete("j")).toBe(true);
  });

  it("says quiet before any part is given out", () => {
    const order: string[] = [];
    const { board } = boardOf({ onQuiet: () => order.push("quiet"), onComplete: () => order.push("parts") });
    board.post("vm0", post(0, "", { key: "quiet" }));
    board.post("vm1", post(1, "", { key: "quiet" }));
    expect(order).toEqual(["quiet", "parts"]);
  });

  it("keeps a job's bytes under its cap", () => {
    const { board, overflow } = boardOf({ maxBytesPerJob: 10 });
    expect(board.post("vm0", post(0, "12345678"))).toBeUndefined();
    expect(board.post("vm1", post(1, "12345678"))).toContain("full");
    expect(overflow).toEqual(["j"]);
  });

  it("puts any chunking in any order, with repeats, together", () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 1, maxLength: 200 }),
        fc.array(fc.nat(199), { maxLength: 8 }),
        fc.infiniteStream(fc.nat(1000)),
        (bytes, cuts, picks) => {
          const { board, given } = boardOf();
          const edges = [...new Set([0, bytes.length, ...cuts.filter((c) => c < bytes.length)])].sort(
            (a, b) => a - b,
          );
          const chunks = edges.slice(0, -1).map((from, i) => ({ from, to: edges[i + 1] ?? bytes.length }));
          const order = [...chunks, ...chunks].sort(() => (picks.next().value % 2 === 0 ? 1 : -1));
          for (const { from, to } of order) {
            const data = Buffer.from(bytes.subarray(from, to)).toString("base64");
            board.post("vm0", post(0, "", { offset: from, total: bytes.length, data }));
          }
          board.post("vm1", post(1, "b"));
          expect(given).toHaveLength(1);
          expect(Buffer.from(given[0]?.parts[0]?.data ?? "", "base64")).toEqual(Buffer.from(bytes));
        },
      ),
    );
  });

  it("gives large parts out in chunks a line can carry", () => {
    const { board, given } = boardOf();
    const big = "x".repeat(MAX_CHUNK_BYTES + 5);
    for (let offset = 0; offset < big.length; offset += MAX_CHUNK_BYTES) {
      const data = Buffer.from(big.slice(offset, offset + MAX_CHUNK_BYTES)).toString("base64");
      board.post("vm0", post(0, "", { offset, total: big.length, data }));
    }
    board.post("vm1", post(1, "b"));
    expect(given[0]?.parts.map((p) => [p.rank, p.offset])).toEqual([
      [0, 0],
      [0, MAX_CHUNK_BYTES],
      [1, 0],
    ]);
  });
});
