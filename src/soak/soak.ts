/** Runs the plan in a world: the lab's, or a test's. */
import { setTimeout as delay } from "node:timers/promises";
import { Fault } from "../testbed/fault.js";
import { leaked, type RankHoldings } from "../testbed/holdings.js";
import type { PlannedCycle, Stretch } from "./plan.js";
import { type CycleResult, cycleLine, type FoundFault, faultLine, type SoakResult } from "./summary.js";

export type Done = Omit<CycleResult, "number" | "of">;

export interface SoakJob {
  /** Migrates under the job. Throws what is not as it should be afterwards. */
  cycle(planned: PlannedCycle): Promise<{ done: Done; held: RankHoldings[] }>;
  /** Ends the job. Throws unless everything it checked was right. */
  end(): Promise<void>;
}

export interface SoakWorld {
  start(program: string, args: readonly string[]): Promise<SoakJob>;
  /** After a fault: ends the job by force. Returns what makes the lab useless, else "". */
  clearUp(): Promise<string>;
}

export interface SoakOptions {
  seed: number;
  plan: readonly Stretch[];
  /** A line of the result. */
  print: (line: string) => void;
  signal: AbortSignal;
}

/**
 * Goes through all stretches. A fault ends its stretch, and the next one begins with a new job, if the lab is
 * still of use. Rejects only when it is stopped.
 */
export async function runSoak(world: SoakWorld, options: SoakOptions): Promise<SoakResult> {
  const { seed, plan, print, signal } = options;
  const planned = plan.reduce((sum, { cycles }) => sum + cycles.length, 0);
  const cycles: CycleResult[] = [];
  const faults: FoundFault[] = [];
  let jobs = 0;
  let number = 0;
  for (const stretch of plan) {
    const last = number + stretch.cycles.length;
    jobs++;
    try {
      await runStretch(world, stretch, signal, (done) => {
        const result = { ...done, number: ++number, of: planned };
        cycles.push(result);
        print(cycleLine(result));
      });
    } catch (error) {
      signal.throwIfAborted();
      const fault: FoundFault = {
        kind: error instanceof Fault ? error.kind : "failed",
        cycle: Math.min(number + 1, last),
        message: error instanceof Error ? error.message : String(error),
      };
      faults.push(fault);
      print(faultLine(fault));
      const useless = await world.clearUp();
      signal.throwIfAborted();
      if (useless !== "") {
        print(`the lab is of no use any more: ${useless}`);
        break;
      }
    }
    number = last;
  }
  return { seed, planned, jobs, cycles, faults };
}

/** One job and its cycles. */
async function runStretch(
  world: SoakWorld,
  { program, args, cycles }: Stretch,
  signal: AbortSignal,
  tell: (done: Done) => void,
): Promise<void> {
  const job = await world.start(program, args);
  let settled: readonly RankHoldings[] | undefined;
  for (const planned of cycles) {
    signal.throwIfAborted();
    await delay(planned.pauseMs, undefined, { signal });
    const { done, held } = await job.cycle(planned);
    // A card that is opened anew is held otherwise than the first one (openib then has an endpoint to itself), and
    // connections are made at first use: what is left when every rank has done it once is what later cycles may leave.
    if (settled === undefined && held.every(({ epoch }) => epoch > 1)) settled = held;
    const more = leaked(settled ?? held, held);
    if (more.length > 0) throw new Fault("leaked", `${more.join("; ")} (after ${done.strategy})`);
    tell(done);
  }
  signal.throwIfAborted();
  await job.end();
}
