/** The demo's course: start a job, move a VM under it, let it end, judge. */
import { setTimeout as delay } from "node:timers/promises";
import type { CycleReport } from "../controller/report.js";
import { SymvirtError } from "../errors.js";
import type { Strategy } from "../controller/strategy.js";
import type { IterationSample, RankTraffic, RouteBytes } from "../timeline/input.js";
import { type Check, demoChecks } from "./checks.js";
import { countIterations, type IterationCount, type Period } from "./job-clock.js";
import { jobCommand } from "./job-command.js";
import type { JobResult } from "./job-log.js";
import { JobRecorder } from "./recorder.js";
import { bandsOf, type CounterReading, type RankSample, routeBytes, totalBytes } from "./route-bytes.js";
import type { Stage } from "./stage.js";

export interface DemoPlan {
  ranksPerVm: number;
  /** What is asked for; a program that cannot go live is parked all the same. */
  strategy: Strategy;
  /** A program of the user's; without it the stencil workload runs. */
  own?: { path: string; args: readonly string[] };
}

export interface DemoTiming {
  /** How long the job runs at least before the cycle, and after it. */
  beforeMs: number;
  afterMs: number;
  /** A busy machine gets this much longer until every rank has moved bytes again and the job has iterated. */
  patienceMs: number;
  pollMs: number;
  /** Deadline for all ranks to run on openib, and for the job to end when told to. */
  startMs: number;
  endMs: number;
}

export const defaultTiming: DemoTiming = {
  ...{ beforeMs: 6000, afterMs: 8000, patienceMs: 60_000, pollMs: 1000 },
  ...{ startMs: 120_000, endMs: 60_000 },
};

export interface DemoTalk {
  say: (line: string) => void;
  /** A line of the output of a program of the user's. */
  output: (line: string) => void;
}

export interface DemoResult {
  cycle: CycleReport;
  /** Null for a program of the user's. */
  job: { result: JobResult | null; iterations: IterationCount } | null;
  jobName: string;
  exitCode: number;
  routes: RouteBytes[];
  bands: RankTraffic[];
  samples: IterationSample[];
  checks: Check[];
}

const workload = "stencil";
const stopFile = "/tmp/symvirt-demo-stop";
/** Twenty progress lines a second at most: each iteration of a slow job is seen, and a fast one prints little. */
const progressSeconds = "0.05";

/** The samples with the counters that the cycle's report has of a moment. */
function at(cycle: CycleReport, moment: "before" | "after", samples: readonly RankSample[]): RankSample[] {
  return samples.map((sample) => {
    const span = cycle.ranks.find((r) => r.rank === sample.rank)?.[moment];
    if (span === undefined) return sample;
    return { ...sample, bytes: { openib: totalBytes(span.openib), tcp: totalBytes(span.tcp) } };
  });
}

/** From when the last rank had left the card until the ranks were told to use it again. */
function cardAway({ startedAt, phases }: CycleReport): Period | null {
  const begun = Date.parse(startedAt);
  const left = phases.filter((span) => span.phase === "tear-down").map((span) => span.startMs + span.ms);
  const back = phases.filter((span) => span.phase === "re-init").map((span) => span.startMs);
  if (left.length === 0 || back.length === 0) return null;
  return { startMs: begun + Math.max(...left), endMs: begun + Math.min(...back) };
}

/** When the moved VM's clock stood still (host clock); the cycle's end when no such phase was reached. */
function stoodStill({ startedAt, totalMs, phases, vm }: CycleReport): number {
  const span = phases.find((s) => s.vm === vm && s.phase === "downtime");
  return Date.parse(startedAt) + (span === undefined ? totalMs : span.startMs);
}

/** Looks at the ranks and keeps what was read. */
class CounterLog {
  readonly readings: CounterReading[] = [];
  readonly #stage: Stage;

  constructor(stage: Stage) {
    this.#stage = stage;
  }

  async look(): Promise<RankSample[]> {
    const samples = await this.#stage.ranks();
    const atMs = Date.now();
    for (const { rank, vm, bytes } of samples) this.readings.push({ rank, vm, atMs, bytes });
    return samples;
  }
}

/** A job in the first VM, and how it ends. */
interface RunningJob {
  recorder: JobRecorder;
  ended: Promise<number>;
  exitCode: () => number | undefined;
}

async function startJob(stage: Stage, plan: DemoPlan, talk: DemoTalk): Promise<RunningJob> {
  const { own, ranksPerVm } = plan;
  const program = own === undefined ? stage.workload(workload) : await stage.install(own.path);
  const args = own?.args ?? ["--seconds", "900", "--stop-file", stopFile, "--progress", progressSeconds];
  const placement = { vms: stage.vms, ranksPerVm, network: stage.network };
  const [vm] = stage.vms;
  if (vm === undefined) throw new SymvirtError("internal", "The demo has no VM");
  const recorder = new JobRecorder();
  let code: number | undefined;
  let shown = 0;
  const command = jobCommand(placement, program, args);
  talk.say(`in ${vm}: ${command.join(" ")}`);
  const ended = stage
    .run(vm, command, (line) => {
      const progress = recorder.line(line);
      if (own !== undefined) talk.output(line);
      else if (progress === null) talk.say(`job: ${line}`);
      else if (progress.arrivedMs - shown >= 2000 || progress.gapMs >= 3000) {
        shown = progress.arrivedMs;
        talk.say(
          `job: iteration ${progress.iteration} at ${progress.seconds.toFixed(1)} s, longest gap ${progress.gapMs} ms`,
        );
      }
    })
    .then((exit) => {
      code = exit;
      return exit;
    });
  // Whoever waits for it next gets the error; nobody may be waiting when it comes.
  ended.catch(() => undefined);
  return { recorder, ended, exitCode: () => code };
}

/** Waits until every rank is seen running on openib (and the workload iterating); the job must still run then. */
async function waitForOpenib(
  log: CounterLog,
  job: RunningJob,
  ranks: number,
  plan: DemoPlan,
  timing: DemoTiming,
  signal: AbortSignal,
) {
  const deadline = performance.now() + timing.startMs;
  for (;;) {
    signal.throwIfAborted();
    if (job.exitCode() !== undefined)
      throw new SymvirtError(
        "internal",
        `The job ended with exit code ${job.exitCode()} before a VM could be moved`,
        {
          hint:
            plan.own === undefined
              ? "see its output above"
              : "give it more work: it must run for a minute or so",
        },
      );
    const samples = await log.look();
    const ready = samples.filter((s) => s.state === "running" && s.route === "openib").length;
    const iterating = plan.own !== undefined || job.recorder.last !== undefined;
    if (ready === ranks && samples.length === ranks && iterating) return;
    if (performance.now() > deadline)
      throw new SymvirtError(
        "deadline",
        `After ${timing.startMs / 1000} s ${ready} of ${ranks} ranks run on openib${iterating ? "" : " and no iteration is done"}`,
        {
          hint:
            samples.map((s) => `rank ${s.rank} on ${s.vm}: ${s.state}, ${s.route}`).join("; ") ||
            "no rank has registered with an agent: is the program an MPI program?",
        },
      );
    await Promise.race([delay(timing.pollMs, undefined, { signal }), job.ended.then(() => undefined)]);
  }
}

/** Whether every rank has moved bytes over openib since the earlier samples. */
function allMoved(earlier: readonly RankSample[], later: readonly RankSample[]): boolean {
  return earlier.every(({ rank, bytes }) => {
    const now = later.find((s) => s.rank === rank);
    return now !== undefined && now.bytes.openib > bytes.openib;
  });
}

/** Lets the job run for a while before the cycle. */
async function runBefore(
  log: CounterLog,
  job: RunningJob,
  timing: DemoTiming,
  signal: AbortSignal,
): Promise<void> {
  const end = performance.now() + timing.beforeMs;
  for (let left = timing.beforeMs; left > 0 && job.exitCode() === undefined; left = end - performance.now()) {
    await Promise.race([delay(Math.min(left, timing.pollMs), undefined, { signal }), job.ended]);
    await log.look();
  }
}

/** Lets the job go on, looking at its ranks, until it ends; a workload is told to end after a while. */
async function finishJob(
  stage: Stage,
  log: CounterLog,
  job: RunningJob,
  after: readonly RankSample[],
  plan: DemoPlan,
  timing: DemoTiming,
  signal: AbortSignal,
): Promise<{ last: readonly RankSample[]; exitCode: number }> {
  const began = performance.now();
  const iterationThen = job.recorder.last?.iteration ?? 0;
  let last = after;
  let toldAt: number | undefined;
  while (job.exitCode() === undefined) {
    await Promise.race([delay(timing.pollMs, undefined, { signal }), job.ended]);
    const now = performance.now();
    if (toldAt !== undefined) {
      if (now > toldAt + timing.endMs && job.exitCode() === undefined)
        throw new SymvirtError("deadline", `The job did not end within ${timing.endMs / 1000} s`);
      continue;
    }
    if (job.exitCode() !== undefined) break;
    const samples = await log.look();
    // A rank that has left takes its counters along: the last full set counts.
    if (samples.length === after.length && samples.every((s) => s.state === "running")) last = samples;
    if (plan.own !== undefined || now < began + timing.afterMs) continue;
    const goesOn = allMoved(after, last) && (job.recorder.last?.iteration ?? 0) > iterationThen;
    if (!goesOn && now < began + timing.afterMs + timing.patienceMs) continue;
    await stage.run(stage.vms[0] ?? "", ["touch", stopFile], () => undefined);
    toldAt = performance.now();
  }
  return { last, exitCode: await job.ended };
}

/** Runs the demo on a stage and judges it. Throws when it could not get as far as a cycle. */
export async function runDemo(
  stage: Stage,
  plan: DemoPlan,
  talk: DemoTalk,
  signal: AbortSignal,
  timing: DemoTiming = defaultTiming,
): Promise<DemoResult> {
  const ranks = stage.vms.length * plan.ranksPerVm;
  const [vm = ""] = stage.vms;
  const job = await startJob(stage, plan, talk);
  const log = new CounterLog(stage);
  await waitForOpenib(log, job, ranks, plan, timing, signal);
  talk.say(`all ${ranks} ranks run on openib; ${vm} moves in ${timing.beforeMs / 1000} s`);
  await runBefore(log, job, timing, signal);

  const before = await log.look();
  const cycle = await stage.migrate(vm, stage.spare, {
    say: talk.say,
    reading: (reading) => log.readings.push(reading),
  });
  const startMs = Date.parse(cycle.startedAt);
  const endMs = startMs + cycle.totalMs;
  talk.say(`${cycle.outcome}: ${cycle.message}`);
  const after = await log.look();
  const { last, exitCode } = await finishJob(stage, log, job, after, plan, timing, signal);

  const lines = job.recorder.timed(stoodStill(cycle));
  const { result } = job.recorder;
  const own =
    plan.own === undefined
      ? {
          result,
          iterations: countIterations(
            lines,
            { startMs, endMs },
            cardAway(cycle),
            result?.iterations ?? job.recorder.last?.iteration ?? 0,
          ),
        }
      : null;
  // The report looked at the counters at the very begin and end of the cycle, we some time before and after.
  const routes = routeBytes(at(cycle, "before", before), at(cycle, "after", after), last);
  return {
    cycle,
    job: own,
    jobName: plan.own === undefined ? workload : (plan.own.path.split("/").pop() ?? plan.own.path),
    exitCode,
    routes,
    bands: bandsOf(log.readings, startMs),
    samples: lines.map((l) => ({ atMs: l.atMs - startMs, iteration: l.iteration, gapMs: l.gapMs })),
    checks: demoChecks({ cycle, asked: plan.strategy, ranks, before, after, routes, exitCode, own }),
  };
}
