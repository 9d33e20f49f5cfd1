/** Bench `checkpoint`: how long VMs and their job stand still for one, by each way of capturing, and how long a restart takes. */
import { SymvirtError } from "../errors.js";
import type { CaptureMethod } from "../vmm/driver.js";
import type { BenchJob } from "./blackout-world.js";
import type { Captured, CheckpointLab, CheckpointWorld } from "./checkpoint-world.js";
import { clockStoodStillMs, iterationMs, longestGap } from "./gap.js";
import { describeMachine } from "./machine.js";
import { type CheckpointReport, checkpointReport } from "./results.js";
import { figure } from "./statistics.js";

export interface CheckpointBenchPlan {
  runs: number;
  /** Memory of the guests; the first is that of every figure but `byMemory`. */
  memoryMiB: readonly [number, ...number[]];
  /** How long the job is watched before a checkpoint. */
  quietMs: number;
  pollMs: number;
  /** A job must go on so soon after a checkpoint. */
  patienceMs: number;
}

export const defaultCheckpointPlan: Omit<CheckpointBenchPlan, "runs"> = {
  ...{ memoryMiB: [1024, 3072], quietMs: 8000, pollMs: 200, patienceMs: 120_000 },
};

const ways = { background: "background-snapshot", stopAndSave: "stop-and-save" } as const;
type Way = keyof typeof ways;

interface Measured {
  pauseMs: number[];
  withoutNetworkMs: number[];
  gapMs: number[];
  totalS: number[];
}

/** The job's longest gap, by its own clock and by what that clock cannot see: its VM's pause. */
async function gapOf(
  world: CheckpointWorld,
  job: BenchJob,
  { startMs, endMs }: Captured,
  plan: CheckpointBenchPlan,
): Promise<number> {
  for (let waited = 0; ; waited += plan.pollMs) {
    const gap = longestGap(job.samples, startMs, endMs);
    const unseen = clockStoodStillMs(job.samples, startMs, endMs);
    if (gap !== undefined && unseen !== undefined) return gap + unseen;
    if (waited >= plan.patienceMs)
      throw new SymvirtError(
        "deadline",
        `The job did not go on within ${plan.patienceMs / 1000} s of a checkpoint`,
      );
    await world.wait(plan.pollMs);
  }
}

function summaryOf({ pauseMs, withoutNetworkMs, gapMs, totalS }: Measured) {
  const spread = {
    ...{ pauseMs: figure(pauseMs, 1), withoutNetworkMs: figure(withoutNetworkMs, 1) },
    ...{ gapMs: figure(gapMs, 1), totalS: figure(totalS, 1) },
  };
  return {
    ...{ pauseMs: spread.pauseMs.median, withoutNetworkMs: spread.withoutNetworkMs.median },
    ...{ gapMs: spread.gapMs.median, totalS: spread.totalS.median, spread },
  };
}

/** Both ways in turn under one job; then QEMU's own way and restarts, without one. */
async function measure(
  world: CheckpointWorld,
  lab: CheckpointLab,
  memoryMiB: number,
  plan: CheckpointBenchPlan,
) {
  const empty = (): Measured => ({ pauseMs: [], withoutNetworkMs: [], gapMs: [], totalS: [] });
  const measured: Record<Way, Measured> = { background: empty(), stopAndSave: empty() };
  let bytes = { raw: 0, stored: 0 };
  const job = await lab.startJob();
  for (let run = 1; run <= plan.runs; run++)
    for (const [way, method] of Object.entries(ways) as [Way, CaptureMethod][]) {
      const already = job.samples.length;
      await world.wait(plan.quietMs);
      const iteration = iterationMs(job.samples.slice(already));
      const captured = await lab.checkpoint(method);
      const gap = Math.max(0, (await gapOf(world, job, captured, plan)) - iteration);
      const into = measured[way];
      into.pauseMs.push(...captured.pausesMs);
      into.withoutNetworkMs.push(captured.withoutNetworkMs);
      into.gapMs.push(gap);
      into.totalS.push((captured.endMs - captured.startMs) / 1000);
      if (way === "background") bytes = captured.bytes;
      const pauses = captured.pausesMs.map((ms) => ms.toFixed(0)).join(" and ");
      world.say(
        `${memoryMiB} MiB, run ${run} of ${plan.runs}, ${method}: pauses ${pauses} ms, gap ${gap.toFixed(0)} ms`,
      );
    }
  await job.finish();
  const saved: number[] = [];
  const restartS: number[] = [];
  for (let run = 1; run <= plan.runs; run++) {
    saved.push(...(await lab.snapshotSave()));
    restartS.push((await lab.restart()) / 1000);
    world.say(
      `${memoryMiB} MiB, run ${run} of ${plan.runs}: snapshot-save ${saved.at(-1)?.toFixed(0)} ms, restart ${restartS.at(-1)?.toFixed(1)} s`,
    );
  }
  const spread = { pauseMs: figure(saved, 1) };
  const restarts = figure(restartS, 1);
  return {
    ...{
      memoryMiB,
      background: summaryOf(measured.background),
      stopAndSave: summaryOf(measured.stopAndSave),
    },
    ...{ snapshotSave: { pauseMs: spread.pauseMs.median, spread }, bytes },
    ...{ restartS: restarts.median, spread: { restartS: restarts } },
  };
}

/** Measures everything, one lab for each size of memory. */
export async function runCheckpointBench(
  world: CheckpointWorld,
  plan: CheckpointBenchPlan,
): Promise<CheckpointReport> {
  const machine = describeMachine();
  const byMemory: Awaited<ReturnType<typeof measure>>[] = [];
  let accelerator = "";
  for (const memoryMiB of plan.memoryMiB) {
    const lab = await world.open(memoryMiB);
    accelerator = lab.accelerator;
    try {
      byMemory.push(await measure(world, lab, memoryMiB, plan));
    } finally {
      await lab.close();
    }
  }
  const [first] = byMemory;
  if (first === undefined) throw new Error("no memory was asked for");
  const { background, stopAndSave, snapshotSave, bytes, restartS } = first;
  const spread = {
    ...{ background: background.spread.pauseMs, stopAndSave: stopAndSave.spread.pauseMs },
    snapshotSave: snapshotSave.spread.pauseMs,
  };
  return checkpointReport.parse({
    ...{ schemaVersion: 1, bench: "checkpoint", machine, accelerator },
    pauseMs: {
      ...{ background: background.pauseMs, stopAndSave: stopAndSave.pauseMs },
      ...{ snapshotSave: snapshotSave.pauseMs, spread },
    },
    ...{ bytes, restartS, byMemory },
  });
}
