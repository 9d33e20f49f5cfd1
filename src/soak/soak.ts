/** Runs the plan in a lab that is up. */
import { setTimeout as delay } from "node:timers/promises";
import { Fault } from "../testbed/fault.js";
import { holdings, leaked, type RankHoldings } from "../testbed/holdings.js";
import { Job } from "../testbed/job.js";
import { migrateUnderJob } from "../testbed/outcomes.js";
import type { Testbed } from "../testbed/testbed.js";
import type { PlannedCycle, Stretch } from "./plan.js";
import { type CycleResult, cycleLine, faultLine, type FoundFault, type SoakResult } from "./summary.js";

export interface SoakOptions {
  seed: number;
  plan: readonly Stretch[];
  /** A line of the result. */
  print: (line: string) => void;
  signal: AbortSignal;
}

/**
 * Goes through all stretches. What is found ends its stretch, whose job is then ended by force; the next one
 * begins with a new job, if the VMs are well. Rejects only when it is stopped.
 */
export async function runSoak(bed: Testbed, { seed, plan, print, signal }: SoakOptions): Promise<SoakResult> {
  const planned = plan.reduce((sum, { cycles }) => sum + cycles.length, 0);
  const cycles: CycleResult[] = [];
  const faults: FoundFault[] = [];
  let begun = 0;
  let jobs = 0;
  for (const stretch of plan) {
    const stretchEnd = begun + stretch.cycles.length;
    jobs++;
    try {
      await runStretch(bed, stretch, signal, (result) => {
        cycles.push({ ...result, number: ++begun, of: planned });
        print(cycleLine({ ...result, number: begun, of: planned }));
      });
    } catch (error) {
      signal.throwIfAborted();
      const fault: FoundFault = {
        kind: error instanceof Fault ? error.kind : "failed",
        cycle: Math.min(begun + 1, stretchEnd),
        message: error instanceof Error ? error.message : String(error),
      };
      faults.push(fault);
      print(faultLine(fault));
      const useless = await clearUp(bed, signal);
      if (useless !== "") {
        print(`the lab is of no use any more: ${useless}`);
        break;
      }
    }
    begun = stretchEnd;
  }
  return { seed, planned, jobs, cycles, faults };
}

type Done = Omit<CycleResult, "number" | "of">;

/** One job and its cycles. Throws what is found. */
async function runStretch(
  bed: Testbed,
  { program, args, cycles }: Stretch,
  signal: AbortSignal,
  done: (result: Done) => void,
): Promise<void> {
  const job = await Job.start(bed, program, { args });
  let first: readonly RankHoldings[] | undefined;
  for (const planned of cycles) {
    signal.throwIfAborted();
    await delay(planned.pauseMs, undefined, { signal });
    const { result, held } = await runCycle(bed, job, planned);
    // Connections are made at first use: what the first cycle leaves is what every later one may.
    first ??= held;
    const more = leaked(first, held);
    if (more.length > 0) throw new Fault("leaked", `${more.join("; ")} (after ${result.strategy})`);
    done(result);
  }
  signal.throwIfAborted();
  await job.expectRightEnd();
}

async function runCycle(
  bed: Testbed,
  job: Job,
  planned: PlannedCycle,
): Promise<{ result: Done; held: RankHoldings[] }> {
  const { vm, strategy } = planned;
  const free = await bed.freeHosts();
  const to = free[planned.freeHost % free.length] ?? free[0];
  const { report, ranks } = await migrateUnderJob(bed, job, { vm, to, strategy });
  return {
    result: {
      ...{ program: job.program, vm, to, strategy: report.strategy, totalMs: report.totalMs },
      downtimeMs: report.preCopy?.downtimeMs ?? 0,
    },
    held: await holdings(bed, ranks),
  };
}

/** Ends what is left of a stretch that has found something. Returns what makes the lab useless, else "". */
async function clearUp(bed: Testbed, signal: AbortSignal): Promise<string> {
  const aborted = await bed.cli(["abort"]);
  if (aborted.code !== 0) bed.say(`symvirt abort: ${aborted.stderr.trim()}`);
  await bed.killJobs();
  signal.throwIfAborted();
  const { vms } = await bed.status();
  return vms
    .filter((v) => v.status !== "running" || v.cards.length === 0 || v.trouble !== "")
    .map((v) => `${v.vm} is ${v.status} on ${v.host}, cards: ${v.cards.join(", ") || "none"} ${v.trouble}`)
    .join("; ");
}
