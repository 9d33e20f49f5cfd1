/** Bench `blackout`: how long a job stands still while one of its VMs moves. */
import type { Strategy } from "../controller/strategy.js";
import { strategies } from "../controller/strategy.js";
import { SymvirtError } from "../errors.js";
import type { BenchJob, BenchLab, BenchWorld } from "./blackout-world.js";
import { iterationMs, longestGap } from "./gap.js";
import { describeMachine } from "./machine.js";
import { type BlackoutReport, blackoutReport } from "./results.js";
import { figure } from "./statistics.js";

export interface BlackoutPlan {
  runs: number;
  /** Memory of the guests; the first is that of every figure but `byMemory`. */
  memoryMiB: readonly [number, ...number[]];
  /** Delays of the port; the first is that of every figure but `byLinkUp`. */
  delayS: readonly [number, ...number[]];
  /** How long the job is watched before a cycle. */
  quietMs: number;
  pollMs: number;
  /** A job must go on so soon after a cycle. */
  patienceMs: number;
}

export const defaultPlan: Omit<BlackoutPlan, "runs"> = {
  ...{ memoryMiB: [1024, 3072], delayS: [0, 30] },
  ...{ quietMs: 8000, pollMs: 200, patienceMs: 120_000 },
};

type Gaps = Record<Strategy, number[]>;

/** One cycle under the job: its longest gap then, less the time of an undisturbed iteration just before. */
async function gapOfCycle(
  world: BenchWorld,
  lab: BenchLab,
  job: BenchJob,
  strategy: Strategy,
  plan: BlackoutPlan,
): Promise<number> {
  const already = job.samples.length;
  await world.wait(plan.quietMs);
  const iteration = iterationMs(job.samples.slice(already));
  const { startMs, endMs, strategy: done } = await lab.cycle(strategy);
  if (done !== strategy)
    throw new SymvirtError(
      "internal",
      `The job was moved by strategy ${done}, which says nothing about ${strategy}`,
    );
  for (let waited = 0; ; waited += plan.pollMs) {
    const gap = longestGap(job.samples, startMs, endMs);
    if (gap !== undefined) return Math.max(0, gap - iteration);
    if (waited >= plan.patienceMs)
      throw new SymvirtError(
        "deadline",
        `The job did not go on within ${plan.patienceMs / 1000} s of a cycle (${strategy})`,
      );
    await world.wait(plan.pollMs);
  }
}

/** Live and park, in turn, under one job. */
async function gapsOf(world: BenchWorld, lab: BenchLab, what: string, plan: BlackoutPlan): Promise<Gaps> {
  const gaps: Gaps = { live: [], park: [] };
  const job = await lab.startJob();
  for (let run = 1; run <= plan.runs; run++)
    for (const strategy of strategies) {
      const gap = await gapOfCycle(world, lab, job, strategy, plan);
      gaps[strategy].push(gap);
      world.say(`${what}, run ${run} of ${plan.runs}, ${strategy}: gap ${gap.toFixed(1)} ms`);
    }
  await job.finish();
  return gaps;
}

/** The same move without a job. */
async function bareDowntimes(world: BenchWorld, lab: BenchLab, plan: BlackoutPlan): Promise<number[]> {
  const downtimes: number[] = [];
  for (let run = 1; run <= plan.runs; run++) {
    const { downtimeMs } = await lab.cycle("park");
    downtimes.push(downtimeMs);
    world.say(`no job, run ${run} of ${plan.runs}: downtime ${downtimeMs} ms`);
  }
  return downtimes;
}

function summary(gaps: Gaps) {
  const spread = { live: figure(gaps.live, 1), park: figure(gaps.park, 1) };
  return { live: spread.live.median, park: spread.park.median, spread };
}

async function withLab<T>(
  world: BenchWorld,
  memoryMiB: number,
  work: (lab: BenchLab) => Promise<T>,
): Promise<T> {
  const lab = await world.open(memoryMiB);
  try {
    return await work(lab);
  } finally {
    await lab.close();
  }
}

/** Measures everything, one lab after the other. */
export async function runBlackout(world: BenchWorld, plan: BlackoutPlan): Promise<BlackoutReport> {
  const machine = describeMachine();
  const [memory, ...otherMemories] = plan.memoryMiB;
  const [delay, ...otherDelays] = plan.delayS;
  const first = await withLab(world, memory, async (lab) => {
    await lab.delayLinkUp(delay);
    const gaps = await gapsOf(world, lab, `${memory} MiB`, plan);
    const downtimes = await bareDowntimes(world, lab, plan);
    const delayed: { delayS: number; gaps: Gaps }[] = [];
    for (const delayS of otherDelays) {
      await lab.delayLinkUp(delayS);
      delayed.push({
        delayS,
        gaps: await gapsOf(world, lab, `${memory} MiB, port up after ${delayS} s`, plan),
      });
    }
    return { accelerator: lab.accelerator, gaps, downtimes, delayed };
  });
  const byMemory = [{ memoryMiB: memory, ...summary(first.gaps) }];
  for (const memoryMiB of otherMemories) {
    const gaps = await withLab(world, memoryMiB, async (lab) => {
      await lab.delayLinkUp(delay);
      return await gapsOf(world, lab, `${memoryMiB} MiB`, plan);
    });
    byMemory.push({ memoryMiB, ...summary(gaps) });
  }
  const base = summary(first.gaps);
  const downtime = figure(first.downtimes, 1);
  return blackoutReport.parse({
    ...{ schemaVersion: 1, bench: "blackout", machine, accelerator: first.accelerator },
    live: { gapMs: base.live, spread: { gapMs: base.spread.live } },
    park: { gapMs: base.park, spread: { gapMs: base.spread.park } },
    bare: { downtimeMs: downtime.median, spread: { downtimeMs: downtime } },
    liveOverPark: Number((base.live / base.park).toFixed(4)),
    byMemory,
    byLinkUp: [
      { delayS: delay, ...base },
      ...first.delayed.map(({ delayS, gaps }) => ({ delayS, ...summary(gaps) })),
    ],
  });
}
