import { describe, expect, it } from "vitest";
import type { CaptureMethod } from "../vmm/driver.js";
import { runCheckpointBench } from "./checkpoint.js";
import type { CheckpointLab, CheckpointWorld } from "./checkpoint-world.js";
import { clockStoodStillMs, type GapSample } from "./gap.js";
import { checkpointReport } from "./results.js";
import { checkpointLines } from "./tables.js";

describe("the pause a job's own clock cannot see", () => {
  const line = (seconds: number, arrivedMs: number): GapSample => ({
    ...{ seconds, arrivedMs, gapMs: 10, iteration: seconds * 100 },
  });
  const before = [1, 2, 3].map((s) => line(s, s * 1000 + 50));

  it("is what all lines after the cycle are late by, however late single ones are", () => {
    const after = [4, 5, 6, 7].map((s, i) => line(s, s * 1000 + 50 + 700 + (i === 2 ? 0 : 300)));
    expect(clockStoodStillMs([...before, ...after], 3100, 4000)).toBe(700);
    expect(clockStoodStillMs([...before, ...after.slice(1)], 3100, 4000)).toBeUndefined();
  });

  it("is nothing when one line after it is as early as those before", () => {
    const after = [4, 5, 6, 7].map((s, i) => line(s, s * 1000 + (i === 3 ? 20 : 900)));
    expect(clockStoodStillMs([...before, ...after], 3100, 4000)).toBe(0);
    expect(() => clockStoodStillMs(after, 3100, 4000)).toThrow(/told nothing/);
  });
});

describe("checkpoint", () => {
  /** A job whose VMs' clock stands still in a pause as long as the memory is large, or 7 ms. */
  class FakeWorld implements CheckpointWorld {
    now = 1000;
    open_ = 0;
    broken = false;
    readonly events: string[] = [];
    #behind = 0;
    #samples: GapSample[] = [];

    say(): void {}

    async wait(ms: number): Promise<void> {
      for (const end = this.now + ms; this.now < end;) {
        this.now += 500;
        const iteration = (this.#samples.at(-1)?.iteration ?? 0) + 50;
        const seconds = (this.now - this.#behind) / 1000;
        this.#samples.push({ iteration, seconds, gapMs: 30, arrivedMs: this.now });
      }
    }

    async open(memoryMiB: number): Promise<CheckpointLab> {
      this.open_++;
      this.events.push(`open ${memoryMiB}`);
      return {
        accelerator: "tcg",
        startJob: async () => {
          this.#samples = [];
          return { samples: this.#samples, finish: async () => void this.events.push("finish") };
        },
        checkpoint: async (method: CaptureMethod) => {
          if (this.broken) throw new Error("no room");
          const startMs = this.now;
          const pause = method === "stop-and-save" ? memoryMiB : 7;
          this.#behind += pause;
          this.now += 5000;
          const bytes = { raw: memoryMiB * 2, stored: memoryMiB };
          return { startMs, endMs: this.now, pausesMs: [pause, pause + 1], withoutNetworkMs: 80, bytes };
        },
        snapshotSave: async () => [2 * memoryMiB, 2 * memoryMiB],
        restart: async () => 9000,
        close: async () => {
          this.open_--;
          this.events.push("close");
        },
      };
    }
  }

  const plan = {
    ...{ runs: 2, quietMs: 2000, pollMs: 100, patienceMs: 5000 },
    memoryMiB: [1024, 3072] as [number, ...number[]],
  };

  it("measures every figure and makes a report of the published shape", async () => {
    const world = new FakeWorld();
    const report = checkpointReport.parse(JSON.parse(JSON.stringify(await runCheckpointBench(world, plan))));
    expect(report.pauseMs).toMatchObject({ background: 7.5, stopAndSave: 1024.5, snapshotSave: 2048 });
    expect(report.pauseMs.spread.background).toEqual({ runs: 4, median: 7.5, min: 7, max: 8 });
    expect(report).toMatchObject({ bytes: { raw: 2048, stored: 1024 }, restartS: 9 });
    const large = report.byMemory[1];
    expect(large).toMatchObject({ memoryMiB: 3072, background: { pauseMs: 7.5, withoutNetworkMs: 80 } });
    // Its own clock shows 30 ms, of which an iteration is 10.
    expect(large?.background.gapMs).toBe(27);
    expect(large?.stopAndSave.gapMs).toBeGreaterThan(3000);
    expect(world.events).toEqual(["open 1024", "finish", "close", "open 3072", "finish", "close"]);
    expect(checkpointLines(report).join("\n")).toMatch(/stop and save: a VM stands still, ms +4 +1024\.5/);
  });

  it("takes the lab down when a checkpoint fails", async () => {
    const world = new FakeWorld();
    world.broken = true;
    await expect(runCheckpointBench(world, plan)).rejects.toThrow("no room");
    expect(world.open_).toBe(0);
  });
});
