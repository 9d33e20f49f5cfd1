import { describe, expect, it } from "vitest";
import { type ConvergencePlan, defaultConvergence, runConvergence } from "./convergence.js";
import type { ConvergenceLab, ConvergenceWorld, Way } from "./convergence-world.js";
import type { GapSample } from "./gap.js";
import { convergenceReport } from "./results.js";
import { convergenceLines } from "./tables.js";

interface Course {
  seconds: number;
  gapMs: number;
}

/** A world whose clock is a number: a job that iterates every 10 ms, and stands still in a move as told. */
class FakeWorld implements ConvergenceWorld {
  now = 1000;
  isOpen = false;
  /** The job says nothing any more. */
  stuck = false;
  readonly moves: Way[] = [];
  readonly #course: (way: Way, run: number) => Course;
  #samples: GapSample[] = [];
  #gapMs = 10;

  constructor(course: (way: Way, run: number) => Course) {
    this.#course = course;
  }

  say(): void {}

  async wait(ms: number): Promise<void> {
    for (const end = this.now + ms; this.now < end;) {
      this.now += 500;
      if (this.stuck) continue;
      const iteration = (this.#samples.at(-1)?.iteration ?? 0) + 50;
      this.#samples.push({ iteration, seconds: this.now / 1000, gapMs: this.#gapMs, arrivedMs: this.now });
      this.#gapMs = 10;
    }
  }

  async open(): Promise<ConvergenceLab> {
    this.isOpen = true;
    return {
      accelerator: "tcg",
      startJob: async () => {
        this.#samples = [];
        return { samples: this.#samples, finish: async () => undefined };
      },
      move: async (way, capMs) => {
        this.moves.push(way);
        const run = this.moves.filter((m) => m === way).length;
        const { seconds, gapMs } = this.#course(way, run);
        const startMs = this.now;
        this.now += Math.min(seconds * 1000, capMs);
        this.#gapMs = gapMs + 10;
        return { startMs, endMs: this.now, completed: seconds * 1000 <= capMs };
      },
      close: async () => {
        this.isOpen = false;
      },
    };
  }
}

const plan: ConvergencePlan = { ...defaultConvergence, runs: 3, capMs: 60_000, patienceMs: 5000 };

describe("convergence", () => {
  it("moves by both ways in turn and makes a report of the published shape", async () => {
    const world = new FakeWorld((way, run) =>
      way === "cooperative" ? { seconds: 20 + run, gapMs: 6000 } : { seconds: 50, gapMs: 900 + run },
    );
    const report = convergenceReport.parse(JSON.parse(JSON.stringify(await runConvergence(world, plan))));
    expect(world.moves).toEqual(Array(3).fill(["cooperative", "autoConverge"]).flat());
    expect(report.cooperative).toEqual({
      ...{ totalS: 22, gapMs: 6000, completed: true, completedRuns: 3 },
      spread: {
        totalS: { runs: 3, median: 22, min: 21, max: 23 },
        gapMs: { runs: 3, median: 6000, min: 6000, max: 6000 },
      },
    });
    expect(report.autoConverge).toMatchObject({ totalS: 50, gapMs: 902, completed: true });
    expect(world.isOpen).toBe(false);
    expect(convergenceLines(report).join("\n")).toMatch(/cooperative, whole cycle, s +3 of 3 +22\.0 +21\.0/);
  });

  it("counts what was not done in time as not completed, with the time until then", async () => {
    const world = new FakeWorld((way, run) =>
      way === "cooperative" ? { seconds: 20, gapMs: 6000 } : { seconds: run === 2 ? 40 : 1e6, gapMs: 900 },
    );
    const { cooperative, autoConverge } = await runConvergence(world, plan);
    expect(cooperative.completed).toBe(true);
    expect(autoConverge).toMatchObject({ totalS: 60, completed: false, completedRuns: 1 });
  });

  it("takes the lab down when a move fails, or the job does not go on", async () => {
    const broken = new FakeWorld(() => {
      throw new Error("no card");
    });
    await expect(runConvergence(broken, plan)).rejects.toThrow("no card");
    expect(broken.isOpen).toBe(false);
    const silent = new FakeWorld(() => {
      silent.stuck = true;
      return { seconds: 20, gapMs: 1 };
    });
    await expect(runConvergence(silent, plan)).rejects.toThrow(/did not go on within 5 s/);
    expect(silent.isOpen).toBe(false);
  });
});
