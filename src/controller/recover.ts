/**
 * `symvirt abort` when no controller runs: finishes a cycle whose controller was killed. Where the VM is, is
 * asked of both VMMs; the journal only says what may have been begun.
 */
import { SymvirtError } from "../errors.js";
import type { VmFacts } from "../vmm/driver.js";
import type { CycleEvent, Phase } from "./cycle.js";
import { sentence } from "./errors-in-words.js";
import type { Fleet } from "./fleet.js";
import { limitsInForce } from "./limits.js";
import { recoverSet } from "./checkpoint/recover-set.js";
import type { SetPhase } from "./checkpoint/set-cycle.js";
import { lastStep } from "./next-cycle.js";
import { ControlDesk, runOperation } from "./operation.js";
import { Ops } from "./ops.js";
import { greetAgents, knownHost } from "./plan.js";
import { pictureRanks } from "./rank-spans.js";
import { recoveryLimit } from "./recovery-limit.js";
import type { CycleReport, SetReport } from "./report.js";
import type { CycleProgress } from "./runner.js";
import type { Session } from "./session.js";
import type { CycleTarget, InterruptedCycle } from "./state/journal.js";

type Recovery = Extract<CycleEvent, { type: "recover" }>;

export interface RecoverRequest {
  signal: AbortSignal;
  onProgress?: (target: CycleTarget, progress: CycleProgress<Phase | SetPhase>) => void;
  settleMs?: number;
  /** Hosts of which the operator vouches that they are off: what the cycle had there is gone. */
  gone?: readonly string[];
}

/** Finishes the interrupted cycle, if there is one. Undefined when there is nothing to do. */
export async function recoverCycle(
  session: Session,
  request: RecoverRequest,
): Promise<CycleReport | SetReport | undefined> {
  const { journal, fleet, cluster } = session;
  const interrupted = journal.interrupted();
  if (interrupted === undefined) return undefined;
  for (const host of request.gone ?? []) {
    knownHost(cluster, host);
    fleet.gone.add(host);
  }
  if (interrupted.target.set !== undefined) return await recoverSet(session, interrupted, request);
  const desk = new ControlDesk(session, `abort cycle ${interrupted.target.cycle}`);
  await desk.open();
  let outcome: object = { error: "the recovery ended early" };
  try {
    session.lock.describe(`cycle ${interrupted.target.cycle} (abort)`);
    const { vm, from, to } = interrupted.target;
    const limit = recoveryLimit(cluster, request.signal);
    if (interrupted.move !== undefined) await finishMove(fleet, interrupted, interrupted.move, limit);
    const place = await findPlace(fleet, interrupted, limit);
    if (from === to) await followAll(fleet, limit);
    else await fleet.follow(vm, place === "destination" ? to : from);
    const target = await refreshTarget(fleet, interrupted.target, request.signal);
    const event: Recovery = { type: "recover", place, reached: reachedBy(interrupted) };
    const steps = [...pictureRanks(fleet, target).values()]
      .filter(({ report }) => report.cycle === target.cycle)
      .map(({ report }) => report.step);
    const { unfinished, ...report } = await runOperation(
      {
        session,
        verb: "abort",
        signal: request.signal,
        limits: limitsInForce(cluster),
        ...(request.onProgress === undefined ? {} : { onProgress: request.onProgress }),
        ...(request.settleMs === undefined ? {} : { settleMs: request.settleMs }),
      },
      desk,
      target,
      {
        event,
        before: pictureRanks(fleet, target),
        resumeFrom: {
          step: lastStep(interrupted.step, steps),
          quietJobs: interrupted.quietJobs,
          held: interrupted.held,
        },
      },
    );
    outcome = { report, unfinished };
    return report;
  } finally {
    await desk.close(outcome);
  }
}

/** How far the interrupted cycle may have gone, by the phases it has entered. */
function reachedBy({ phases }: InterruptedCycle): Recovery["reached"] {
  const entered = new Set(phases);
  const before = ["begin", "prepare", "drain", "tear-down", "wait", "undo:re-init", "undo:end-destination"];
  if (phases.some((p) => !before.includes(p) && p !== "ended")) return "detach";
  return entered.has("drain") ? "park" : "prepare";
}

/** Finds the one place where the VM is, and makes a VM that was being migrated stay where it is. */
async function findPlace(
  fleet: Fleet,
  { target, phases }: Pick<InterruptedCycle, "target" | "phases">,
  signal: AbortSignal,
): Promise<"source" | "destination"> {
  const { vm, from, to } = target;
  // A script's hold: no VM was moved by the cycle itself.
  if (from === to) return "source";
  const source = await look(fleet, vm, from, signal);
  const destination = await look(fleet, vm, to, signal).catch((error: unknown) => {
    // A VM that runs at its source has not run there: a host that is gone keeps nobody from going on.
    if (source?.status !== "running" || !isUnreachable(error)) throw error;
    return undefined;
  });
  if (source?.status === "running" && destination?.status === "running")
    throw stuck(`${vm} runs on ${from} and on ${to} at once: end the wrong one`);
  if (destination?.status === "running") return "destination";
  if (source === undefined) {
    // Arrived and not resumed: the switch-over resumes it. Still arriving, with no source: the VM is gone.
    if (destination !== undefined && destination.status !== "inmigrate") return "destination";
    throw stuck(`${vm} runs neither on ${from} nor on ${to}: start it again, then move the journal away`);
  }
  if (source.status === "inmigrate")
    throw stuck(`${vm} was on its way back to ${from} and no longer runs on ${to}: start it again`);
  const found = await fleet.driver(vm, from).cancelMigration(signal);
  if (found === "runs-here") return "source";
  if (destination !== undefined && destination.status !== "inmigrate") return "destination";
  // Ended by us, it has not run there: the way back does that only when the switch-over has failed before.
  const resumed = phases.includes("switch-over") && !phases.includes("undo:end-destination");
  if (resumed)
    throw stuck(`${vm} was moved to ${to} and its process there has ended: start it again from its disk`);
  if (!fleet.gone.has(to)) await fleet.vmm.end(vm, to, signal);
  await fleet.driver(vm, from).resume(signal, { evenIfMoved: true });
  return "source";
}

/** The last move of a script that has ended in it: to its end if the VM has arrived, else back. */
async function finishMove(
  fleet: Fleet,
  { target, phases }: InterruptedCycle,
  { phasesBefore, ...move }: NonNullable<InterruptedCycle["move"]>,
  signal: AbortSignal,
): Promise<void> {
  if (fleet.placement.of(move.vm).host === move.to) {
    // The move was over, but for the process that it left.
    const left = await look(fleet, move.vm, move.from, signal);
    if (left?.status === "postmigrate") await fleet.vmm.end(move.vm, move.from, signal);
    return;
  }
  const moved = { ...target, ...move };
  const place = await findPlace(fleet, { target: moved, phases: phases.slice(phasesBefore) }, signal);
  const ops = new Ops({
    fleet,
    target: moved,
    limits: limitsInForce(fleet.cluster),
    onMigration: () => undefined,
  });
  if (place === "source") return await ops.run("end-destination", signal);
  await ops.run("resume-destination", signal);
  await ops.run("commit", signal);
}

/** A hold's script may have moved any VM before it ended. */
async function followAll(fleet: Fleet, signal: AbortSignal): Promise<void> {
  for (const vm of Object.keys(fleet.cluster.vms)) {
    const { host } = await fleet.locate(vm, signal);
    await fleet.follow(vm, host);
  }
}

/** What the VM is there; undefined when it is not. Silence is not absence: only its host can say that no process is there. */
async function look(
  fleet: Fleet,
  vm: string,
  host: string,
  signal: AbortSignal,
): Promise<VmFacts | undefined> {
  if (fleet.gone.has(host)) return undefined;
  try {
    return await fleet.driver(vm, host).inspect(signal);
  } catch (error) {
    signal.throwIfAborted();
    if (!isUnreachable(error)) throw error;
    const pids = await fleet.vmm.findProcesses(vm, host, signal);
    if (pids.length === 0) return undefined;
    throw new SymvirtError(
      "unreachable",
      `${vm} on ${host} does not answer, and its process is there (pid ${pids.join(", ")}): ${sentence(error)}`,
      {
        hint: "see why, or end that process if the VM is not to be kept; then run `symvirt abort` again",
        cause: error,
      },
    );
  }
}

function isUnreachable(error: unknown): boolean {
  return error instanceof SymvirtError && error.exit === "unreachable";
}

function stuck(message: string): SymvirtError {
  return new SymvirtError("needsOperator", message, { hint: "then run `symvirt abort` again" });
}

/** The target without jobs that have ended in the meantime: their agents answer and know nothing of them. */
async function refreshTarget(fleet: Fleet, target: CycleTarget, signal: AbortSignal): Promise<CycleTarget> {
  const vms = [...new Set([target.vm, ...target.jobs.flatMap((j) => j.ranks.map((r) => r.vm))])];
  const silent = await greetAgents(fleet, vms, signal);
  const living = new Set(fleet.roster.jobs().map((j) => j.job));
  const jobs = target.jobs.filter((j) => living.has(j.job) || j.ranks.some((r) => silent.has(r.vm)));
  return { ...target, jobs };
}
