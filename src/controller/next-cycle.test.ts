import { describe, expect, it } from "vitest";
import { lastStep, nextCycle } from "./next-cycle.js";
import type { Roster } from "./roster.js";

/** Jobs of one rank each, by name, that say to be in a cycle. */
function roster(cycles: Record<string, number>): Roster {
  const jobs = Object.entries(cycles).map(([job, cycle]) => ({
    job,
    ranks: new Map([[0, { vm: "vm1", report: { rank: 0, pid: 77, cycle } }]]),
  }));
  return { jobs: () => jobs } as unknown as Roster;
}

describe("the number of a cycle", () => {
  it("is after the journal's and after those of the jobs that take part", () => {
    expect(nextCycle(4, roster({}), [])).toBe(5);
    expect(nextCycle(4, roster({ a: 3 }), [{ job: "a" }])).toBe(5);
    expect(nextCycle(0, roster({ a: 40 }), [{ job: "a" }])).toBe(41);
  });

  it("does not care what ranks of other jobs say", () => {
    expect(nextCycle(4, roster({ a: 2, b: 2 ** 32 - 1 }), [{ job: "a" }])).toBe(5);
  });

  it("is refused when a rank that takes part lies, and named", () => {
    expect(() => nextCycle(4, roster({ a: 2 ** 32 - 1 }), [{ job: "a" }])).toThrow(
      "rank 0 on vm1 (pid 77) says that it is in cycle 4294967295, which never was",
    );
    expect(() => nextCycle(2 ** 32 - 1, roster({}), [])).toThrow(/there is no number after it/);
  });

  it("takes no step that cannot be", () => {
    expect(lastStep(3, [4, 2 ** 32 - 1])).toBe(4);
    expect(lastStep(3, [])).toBe(3);
  });
});
