import { describe, expect, it } from "vitest";
import { type CycleResult, cycleLine, isGood, type SoakResult, summaryLines } from "./summary.js";

const cycle: CycleResult = {
  ...{ number: 7, of: 100, program: "ring", vm: "vm1", to: "h3", strategy: "live" },
  ...{ totalMs: 8123, downtimeMs: 214 },
};
const good: SoakResult = {
  seed: 5,
  planned: 2,
  jobs: 1,
  cycles: [cycle, { ...cycle, number: 8, strategy: "park" }],
  faults: [],
};

describe("the soak's summary", () => {
  it("has a line a cycle", () => {
    expect(cycleLine(cycle)).toBe("cycle   7/100 ring        live vm1 to h3: ok,   8.1 s, downtime 214 ms");
  });

  it("is good only if all was done and nothing was found", () => {
    expect(isGood(good)).toBe(true);
    expect(isGood({ ...good, planned: 3 })).toBe(false);
    expect(isGood({ ...good, faults: [{ kind: "leaked", cycle: 8, message: "x" }] })).toBe(false);
  });

  it("counts every kind, also those that did not come up, and repeats what was found", () => {
    expect(summaryLines(good)).toEqual([
      "soak, seed 5: 2 of 2 cycles done (1 live, 1 park) under 1 jobs: 0 failed, 0 wrong, 0 lost, 0 leaked",
    ]);
    const faults = [
      { kind: "wrong" as const, cycle: 8, message: "rank 1 found a wrong byte" },
      { kind: "leaked" as const, cycle: 8, message: "rank 0 holds 31 descriptors, not 30" },
    ];
    expect(summaryLines({ ...good, planned: 4, faults })).toEqual([
      "cycle 8: WRONG: rank 1 found a wrong byte",
      "cycle 8: LEAKED: rank 0 holds 31 descriptors, not 30",
      "soak, seed 5: 2 of 4 cycles done (1 live, 1 park) under 1 jobs: 0 failed, 1 wrong, 0 lost, 1 leaked",
    ]);
  });
});
