import { describe, expect, it } from "vitest";
import { Fault } from "../testbed/fault.js";
import type { RankHoldings } from "../testbed/holdings.js";
import type { PlannedCycle, Stretch } from "./plan.js";
import { runSoak, type SoakWorld } from "./soak.js";
import { isGood, summaryLines } from "./summary.js";

const cycle: PlannedCycle = { strategy: "live", vm: "vm1", freeHost: 0, pauseMs: 0 };
const plan: Stretch[] = [
  { program: "ring", args: [], cycles: [cycle, cycle, cycle] },
  { program: "sizes", args: [], cycles: [cycle, cycle] },
];
const held = (descriptors: number, epoch: number): RankHoldings[] => [
  { rank: 0, epoch, descriptors, threads: 3, mappings: 100, verbs: 9, rssKiB: 1 },
];

interface Course {
  /** By cycle, over all jobs, from 1: what it throws, or how many descriptors it leaves. */
  cycles?: Record<number, Error | number>;
  /** By job, from 1. */
  ends?: Record<number, Error>;
  useless?: string;
  /** Cycles, from the first, after which not every rank has opened a card anew. */
  unsettled?: number;
}

function world({ cycles = {}, ends = {}, useless = "", unsettled = 0 }: Course) {
  const calls: string[] = [];
  let cycleNumber = 0;
  let jobNumber = 0;
  const made: SoakWorld = {
    start: (program) => {
      const job = ++jobNumber;
      calls.push(`start ${program}`);
      return Promise.resolve({
        cycle: ({ vm, strategy }) => {
          const does = cycles[++cycleNumber] ?? 30;
          if (does instanceof Error) return Promise.reject(does);
          const done = { program, vm, to: "h3", strategy, totalMs: 1, downtimeMs: 1 };
          return Promise.resolve({ done, held: held(does, cycleNumber > unsettled ? 2 : 1) });
        },
        end: () => {
          calls.push(`end ${program}`);
          return ends[job] === undefined ? Promise.resolve() : Promise.reject(ends[job]);
        },
      });
    },
    clearUp: () => {
      calls.push("clear up");
      return Promise.resolve(useless);
    },
  };
  return { made, calls };
}

async function soak(course: Course, abort = new AbortController()) {
  const { made, calls } = world(course);
  const printed: string[] = [];
  const print = (line: string) => void printed.push(line);
  const result = await runSoak(made, { seed: 3, plan, print, signal: abort.signal });
  return { result, calls, printed };
}

describe("runSoak", () => {
  it("goes through all stretches and says so", async () => {
    const { result, calls, printed } = await soak({});
    expect(isGood(result)).toBe(true);
    expect(calls).toEqual(["start ring", "end ring", "start sizes", "end sizes"]);
    expect(printed).toHaveLength(5);
    expect(summaryLines(result).at(-1)).toMatch(/5 of 5 cycles done \(5 live, 0 park\) under 2 jobs/);
  });

  it("a cycle that fails ends its job, and the next stretch is done", async () => {
    const { result, calls } = await soak({ cycles: { 2: new Error("exit 5") } });
    expect(result.faults).toEqual([{ kind: "failed", cycle: 2, message: "exit 5" }]);
    expect(calls).toEqual(["start ring", "clear up", "start sizes", "end sizes"]);
    expect(result.cycles.map((c) => c.number)).toEqual([1, 4, 5]);
    expect(isGood(result)).toBe(false);
  });

  it("is settled when every rank has opened a card anew", async () => {
    const { result } = await soak({ cycles: { 1: 30, 2: 35, 3: 36, 4: 30, 5: 30 }, unsettled: 1 });
    expect(result.faults[0]?.message).toContain("rank 0 holds 36 descriptors, not 35");
  });

  it("more descriptors than after the job's first cycle are a leak; fewer are not", async () => {
    const { result } = await soak({ cycles: { 1: 30, 2: 29, 3: 31, 4: 40, 5: 40 } });
    expect(result.faults).toMatchObject([{ kind: "leaked", cycle: 3 }]);
    expect(result.faults[0]?.message).toContain("rank 0 holds 31 descriptors, not 30");
  });

  it("a job that is not right at its end counts for its last cycle", async () => {
    const { result } = await soak({
      ends: { 1: new Fault("wrong", "bad sum"), 2: new Fault("lost", "hangs") },
    });
    expect(result.faults).toEqual([
      { kind: "wrong", cycle: 3, message: "bad sum" },
      { kind: "lost", cycle: 5, message: "hangs" },
    ]);
    expect(result.cycles).toHaveLength(5);
    expect(isGood(result)).toBe(false);
  });

  it("a lab that is of no use any more ends it", async () => {
    const { result, calls, printed } = await soak({ cycles: { 1: new Error("x") }, useless: "vm1 is gone" });
    expect(calls).toEqual(["start ring", "clear up"]);
    expect(printed.at(-1)).toContain("vm1 is gone");
    expect(isGood(result)).toBe(false);
  });

  it("rejects when it is stopped", async () => {
    const abort = new AbortController();
    abort.abort(new Error("Ctrl-C"));
    await expect(soak({}, abort)).rejects.toThrow("Ctrl-C");
  });
});
