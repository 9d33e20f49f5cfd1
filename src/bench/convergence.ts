/** Bench `convergence`: a VM that writes its memory faster than it can be sent, moved by symvirt's way and by QEMU's. */
import { SymvirtError } from "../errors.js";
import type { BenchJob } from "./blackout-world.js";
import {
  type ConvergenceLab,
  type ConvergenceWorld,
  type Move,
  type Way,
  ways,
} from "./convergence-world.js";
import { iterationMs, longestGap } from "./gap.js";
import { describeMachine } from "./machine.js";
import { type ConvergenceReport, convergenceReport } from "./results.js";
import { figure } from "./statistics.js";

/** What is moved, and how; told to the world when it is made. */
export interface ConvergenceLoad {
  /** Of the stream. */
  bandwidthBytesPerSecond: number;
  /** Memory each rank stamps round and round. */
  megabytes: number;
  /** Of pre-copy, until the ranks are held (cooperative). */
  parkAfterMs: number;
}

export interface ConvergencePlan {
  runs: number;
  load: ConvergenceLoad;
  /** A move that is not done by then counts as not completed, and is rolled back. */
  capMs: number;
  /** How long the job is watched before a move. */
  quietMs: number;
  pollMs: number;
  /** A job must go on so soon after a move. */
  patienceMs: number;
}

export const defaultConvergence: Omit<ConvergencePlan, "runs"> = {
  load: { bandwidthBytesPerSecond: 24 * 2 ** 20, megabytes: 96, parkAfterMs: 5000 },
  ...{ capMs: 180_000, quietMs: 8000, pollMs: 200, patienceMs: 120_000 },
};

interface Measured {
  totalS: number[];
  gapMs: number[];
  completed: number;
}

/** The job's longest gap in a move, less the time of an undisturbed iteration just before. */
async function gapOf(
  world: ConvergenceWorld,
  job: BenchJob,
  { startMs, endMs }: Move,
  iteration: number,
  plan: ConvergencePlan,
): Promise<number> {
  for (let waited = 0; ; waited += plan.pollMs) {
    const gap = longestGap(job.samples, startMs, endMs);
    if (gap !== undefined) return Math.max(0, gap - iteration);
    if (waited >= plan.patienceMs)
      throw new SymvirtError(
        "deadline",
        `The job did not go on within ${plan.patienceMs / 1000} s of the move`,
      );
    await world.wait(plan.pollMs);
  }
}

/** Both ways in turn under one job. */
async function measure(world: ConvergenceWorld, lab: ConvergenceLab, plan: ConvergencePlan) {
  const empty = (): Measured => ({ totalS: [], gapMs: [], completed: 0 });
  const measured: Record<Way, Measured> = { cooperative: empty(), autoConverge: empty() };
  const job = await lab.startJob();
  for (let run = 1; run <= plan.runs; run++)
    for (const way of ways) {
      const already = job.samples.length;
      await world.wait(plan.quietMs);
      const iteration = iterationMs(job.samples.slice(already));
      const move = await lab.move(way, plan.capMs);
      const gapMs = await gapOf(world, job, move, iteration, plan);
      const totalS = (move.endMs - move.startMs) / 1000;
      measured[way].totalS.push(totalS);
      measured[way].gapMs.push(gapMs);
      if (move.completed) measured[way].completed++;
      const end = move.completed ? "" : ", not completed";
      world.say(
        `${way}, run ${run} of ${plan.runs}: ${totalS.toFixed(1)} s, gap ${gapMs.toFixed(0)} ms${end}`,
      );
    }
  await job.finish();
  return measured;
}

function summary({ totalS, gapMs, completed }: Measured, runs: number) {
  const spread = { totalS: figure(totalS, 1), gapMs: figure(gapMs, 1) };
  return {
    ...{ totalS: spread.totalS.median, gapMs: spread.gapMs.median },
    ...{ completed: completed === runs, completedRuns: completed, spread },
  };
}

export async function runConvergence(
  world: ConvergenceWorld,
  plan: ConvergencePlan,
): Promise<ConvergenceReport> {
  const machine = describeMachine();
  const lab = await world.open();
  try {
    const measured = await measure(world, lab, plan);
    const { bandwidthBytesPerSecond, megabytes, parkAfterMs } = plan.load;
    return convergenceReport.parse({
      ...{ schemaVersion: 1, bench: "convergence", machine, accelerator: lab.accelerator },
      ...{ bandwidthBytesPerSecond, megabytes, parkAfterS: parkAfterMs / 1000, capS: plan.capMs / 1000 },
      cooperative: summary(measured.cooperative, plan.runs),
      autoConverge: summary(measured.autoConverge, plan.runs),
    });
  } finally {
    await lab.close();
  }
}
