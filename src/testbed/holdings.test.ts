import { describe, expect, it } from "vitest";
import { leaked, type RankHoldings } from "./holdings.js";

const held = (rank: number, more: Partial<RankHoldings> = {}): RankHoldings => ({
  ...{ rank, epoch: 2, descriptors: 30, threads: 3, mappings: 200, verbs: 12, rssKiB: 30_000 },
  ...more,
});

describe("leaked", () => {
  it("finds nothing in the same, in less, and in memory that comes and goes", () => {
    expect(leaked([held(0), held(1)], [held(0), held(1, { descriptors: 29 })])).toEqual([]);
    expect(leaked([held(0)], [held(0, { mappings: 220, rssKiB: 90_000 })])).toEqual([]);
  });

  it("names every rank and what it holds more of", () => {
    expect(
      leaked([held(0), held(1)], [held(0, { descriptors: 31 }), held(1, { threads: 4, verbs: 14 })]),
    ).toEqual([
      "rank 0 holds 31 descriptors, not 30",
      "rank 1 holds 4 threads, not 3",
      "rank 1 holds 14 verbs, not 12",
    ]);
  });
});
