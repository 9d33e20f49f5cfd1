/** Runs every workload in every mode, in a world: the lab's, or a test's. */
import { describeMachine } from "../bench/machine.js";
import type { JobResult } from "../demo/job-log.js";
import { Fault } from "../testbed/fault.js";
import { courseOf, type EvalPlan, type Mode, sizeArguments, type Workload } from "./plan.js";
import { type EvalResult, evalResult } from "./result.js";
import type { Disturbance, EvalJob, EvalWorld, JobEnd } from "./world.js";

export interface EvalOptions {
  plan: EvalPlan;
  /** A result, as soon as it is there. */
  tell: (result: EvalResult) => void;
  say: (line: string) => void;
  signal: AbortSignal;
}

/** The undisturbed run that the others of its workload are held against. */
interface Baseline {
  iterations: number;
  checksum: string;
  totalMs: number;
}

type Measured = Omit<
  EvalResult,
  "schemaVersion" | "machine" | "accelerator" | "workload" | "mode" | "size" | "right"
>;

const nothing: Measured = {
  ...{ outcome: "failed", message: "", iterations: null, checksum: null, totalMs: null },
  ...{ overheadMs: null, overheadPercent: null, phases: [], heldMs: 0, longestGapMs: null },
};

/** A job that was ended from outside has told nothing of its data; one that finds an error in it ends with 3. */
const hasFailed = ({ exitCode, words }: JobEnd): boolean =>
  exitCode !== 0 && exitCode !== 3 && !words.includes("WRONG ");

/** What is wrong with the way a job ended; "" if nothing is. */
export function complaint(
  workload: Workload,
  ranks: number,
  { exitCode, result, words }: JobEnd,
  base: Baseline | undefined,
): string {
  if (exitCode !== 0) return `the job ended with ${exitCode}: ${words}`;
  if (result === null) return `the job gave no result: ${words}`;
  if (!result.ok || result.workload !== workload || result.ranks !== ranks)
    return `the job's verdict is ${JSON.stringify(result)}`;
  if (base !== undefined && result.iterations !== base.iterations)
    return `the job did ${result.iterations} iterations, not ${base.iterations}`;
  if (base !== undefined && result.checksum !== base.checksum)
    return `the checksum is ${result.checksum}, undisturbed it was ${base.checksum}`;
  return "";
}

async function disturb(
  world: EvalWorld,
  job: EvalJob,
  mode: Mode,
  iterations: number,
): Promise<Disturbance[]> {
  if (mode === "none") return [];
  await job.reach(Math.floor(iterations / 3));
  if (mode !== "checkpoint") return [await world.migrate(mode)];
  const { checkpointing } = world;
  if (checkpointing === undefined) return [];
  const saved = await checkpointing.checkpoint();
  // Some iterations that are lost with the VMs, and done again.
  await job.reach(Math.floor((iterations * 2) / 3));
  return [saved, await checkpointing.restart()];
}

/** One run of one workload. Throws what kept it from its end. */
async function measure(
  world: EvalWorld,
  plan: EvalPlan,
  workload: Workload,
  mode: Mode,
  base: Baseline | undefined,
): Promise<Measured> {
  const iterations = base?.iterations ?? plan.iterations;
  const length = iterations === undefined ? ["--seconds", plan.seconds] : ["--iterations", iterations];
  const job = await world.start(workload, [...sizeArguments(workload, plan.size), ...length.map(String)]);
  const done = await disturb(world, job, mode, iterations ?? 0);
  if (done.length > 0 && job.hasEnded)
    throw new Fault("failed", "the job ended before the operation was over: give it more --seconds");
  const end = await job.end();
  const wrong = complaint(workload, world.ranks, end, base);
  const result: JobResult | null = end.result;
  const overhead = base === undefined ? null : end.totalMs - base.totalMs;
  return {
    outcome: wrong === "" ? "right" : hasFailed(end) ? "failed" : "wrong",
    message: wrong,
    iterations: result?.iterations ?? null,
    checksum: result?.checksum ?? null,
    totalMs: Math.round(end.totalMs),
    overheadMs: overhead === null ? null : Math.round(overhead),
    overheadPercent:
      overhead === null || base === undefined ? null : Number(((overhead / base.totalMs) * 100).toFixed(2)),
    phases: done.flatMap((d) => d.phases),
    heldMs: done.reduce((sum, d) => sum + d.heldMs, 0),
    longestGapMs: mode === "checkpoint" ? null : (result?.longestGapMs ?? null),
  };
}

/**
 * Goes through all workloads and modes, and resolves with one result for each. What fails is a result too; the next
 * run is tried if the lab is still of use. Rejects only when it is stopped.
 */
export async function runEval(world: EvalWorld, options: EvalOptions): Promise<EvalResult[]> {
  const { plan, tell, say, signal } = options;
  const machine = describeMachine();
  const results: EvalResult[] = [];
  let useless = "";
  for (const workload of plan.workloads) {
    let base: Baseline | undefined;
    const once = async (mode: Mode): Promise<Measured> => {
      if (mode === "checkpoint" && world.checkpointing === undefined)
        return { ...nothing, outcome: "left-out", message: "this build has no checkpoint and restart" };
      if (useless !== "") return { ...nothing, message: `the lab is of no use any more: ${useless}` };
      if (mode !== "none" && base === undefined)
        return { ...nothing, message: "there is no right undisturbed run to hold it against" };
      try {
        return await measure(world, plan, workload, mode, base);
      } catch (error) {
        signal.throwIfAborted();
        const message = error instanceof Error ? error.message : String(error);
        useless = await world.clearUp();
        signal.throwIfAborted();
        return {
          ...nothing,
          outcome: error instanceof Fault && error.kind === "wrong" ? "wrong" : "failed",
          message,
        };
      }
    };
    for (const mode of courseOf(plan)) {
      signal.throwIfAborted();
      const measured = await once(mode);
      const { outcome, totalMs, iterations, checksum } = measured;
      if (
        mode === "none" &&
        outcome === "right" &&
        totalMs !== null &&
        iterations !== null &&
        checksum !== null
      )
        base = { totalMs, iterations, checksum };
      const result = evalResult.parse({
        ...{ schemaVersion: 1, machine, accelerator: world.accelerator, workload, mode, size: plan.size },
        right: outcome === "left-out" ? null : outcome === "right",
        ...measured,
      });
      results.push(result);
      say(`${workload}, ${mode}: ${outcome}${result.message === "" ? "" : `: ${result.message}`}`);
      tell(result);
    }
  }
  return results;
}
