/** Finishes a checkpoint or restart whose controller was killed: back to what was, or on if the checkpoint is there. */
import { CheckpointStore } from "../../checkpoint/store.js";
import { SymvirtError } from "../../errors.js";
import type { Cluster } from "../cluster-file.js";
import { sentence } from "../errors-in-words.js";
import type { Fleet } from "../fleet.js";
import { lastStep } from "../next-cycle.js";
import { ControlDesk } from "../operation.js";
import { greetAgents } from "../plan.js";
import { pictureRanks } from "../rank-spans.js";
import { recoveryLimit } from "../recovery-limit.js";
import type { SetReport } from "../report.js";
import type { Session } from "../session.js";
import type { CycleTarget, InterruptedCycle } from "../state/journal.js";
import { CheckpointOps } from "./checkpoint-ops.js";
import { RestartOps } from "./restart-ops.js";
import { runSet, type SetOperation, setReport } from "./run-set.js";
import type { SetEvent, SetVerb } from "./set-cycle.js";
import type { SetOps } from "./set-ops.js";

type Reached = Extract<SetEvent, { type: "recover" }>["reached"];

export async function recoverSet(
  session: Session,
  interrupted: InterruptedCycle,
  request: Omit<SetOperation, "session">,
): Promise<SetReport> {
  const { target } = interrupted;
  const verb: SetVerb = interrupted.verb === "restart" ? "restart" : "checkpoint";
  const desk = new ControlDesk(session, `abort cycle ${target.cycle}`);
  await desk.open();
  let outcome: object = { error: "the recovery ended early" };
  try {
    session.lock.describe(`cycle ${target.cycle} (abort)`);
    const { ops, now, first, gone } =
      verb === "restart"
        ? await ofRestart(session, interrupted)
        : await ofCheckpoint(session, interrupted, request.signal);
    const steps = [...pictureRanks(session.fleet, now).values()]
      .filter(({ report }) => report.cycle === now.cycle)
      .map(({ report }) => report.step);
    const end = await runSet({ session, ...request }, desk, verb, now, ops, first, {
      step: lastStep(interrupted.step, steps),
      quietJobs: interrupted.quietJobs,
    });
    const report = withoutThose(gone, setReport("abort", now, end));
    if (verb === "checkpoint") report.message += swept(session.cluster);
    outcome = { report, unfinished: end.unfinished };
    return { ...report, complete: verb === "restart" || report.complete };
  } finally {
    await desk.close(outcome);
  }
}

/** What cannot be removed now the next checkpoint removes: told at the end of the message. */
function swept(cluster: Cluster): string {
  try {
    new CheckpointStore(cluster).sweep();
    return "";
  } catch (error) {
    return `; but what is left of the checkpoint could not be removed: ${sentence(error)}`;
  }
}

/** A store that cannot be read keeps no VM parked: what the journal says counts then. */
function isComplete(cluster: Cluster, id: string): boolean {
  try {
    return new CheckpointStore(cluster).entry(id).state === "complete";
  } catch {
    return false;
  }
}

interface Recovery {
  ops: SetOps;
  now: CycleTarget;
  first: SetEvent;
  /** VMs that have died. */
  gone: readonly string[];
}

/** The others are as before; that a VM is not is for a person to mend. */
function withoutThose(gone: readonly string[], report: SetReport): SetReport {
  if (gone.length === 0) return report;
  const runs = gone.length === 1 ? "no longer runs, and its jobs" : "no longer run, and their jobs";
  const words = `${gone.join(" and ")} ${runs} have ended: restart the cluster from a checkpoint, or start what is missing`;
  return { ...report, outcome: "needs-operator", message: `${report.message}; ${words}` };
}

async function ofRestart({ fleet }: Session, { target, phases }: InterruptedCycle): Promise<Recovery> {
  const vms = target.set?.vms ?? [];
  const ops = new RestartOps({ fleet, vms, checkpoint: undefined });
  const runs = phases.includes("place");
  if (runs) for (const { vm, host } of vms) await fleet.follow(vm, host);
  // It only ends or notes what was started: no rank has to be met.
  return {
    ops,
    now: { ...target, jobs: [] },
    first: { type: "recover", reached: runs ? "place" : "begin" },
    gone: [],
  };
}

async function ofCheckpoint(
  session: Session,
  { target, phases }: InterruptedCycle,
  signal: AbortSignal,
): Promise<Recovery> {
  const { fleet, cluster } = session;
  const limit = recoveryLimit(cluster, signal);
  const gone: string[] = [];
  for (const { vm, host } of target.set?.vms ?? []) if (await hasDied(fleet, vm, host, limit)) gone.push(vm);
  const vms = (target.set?.vms ?? []).filter(({ vm }) => !gone.includes(vm));
  const ops = new CheckpointOps({
    ...{ fleet, target, vms, plan: new Map(), method: "background-snapshot", level: 1 },
    pending: undefined,
  });
  const reached = reachedBy(phases);
  // Before anything is asked of the guests: one that stands still does not answer.
  if (reached === "cut") await ops.run("release", limit);
  const silent = await greetAgents(
    fleet,
    vms.map((v) => v.vm),
    signal,
  );
  const living = new Set(fleet.roster.jobs().map((j) => j.job));
  // Without jobs that have ended meanwhile: their agents answer and know nothing of them. One with a rank in a VM
  // that has died ends by itself.
  const jobs = target.jobs
    .filter((j) => living.has(j.job) || j.ranks.some((r) => silent.has(r.vm)))
    .filter((j) => !j.ranks.some((r) => gone.includes(r.vm)));
  const isKept = isComplete(cluster, target.set?.checkpoint ?? "");
  return {
    ops,
    now: { ...target, jobs, ...(target.set === undefined ? {} : { set: { ...target.set, vms } }) },
    first: { type: "recover", reached: isKept ? "kept" : reached },
    gone,
  };
}

/**
 * Follows a VM to where it is. True when it is nowhere: its VMM does not answer, and the host where it was says that no
 * process of it is there. One that is silent and may be there is met with the others, which are let go before it fails.
 */
async function hasDied(fleet: Fleet, vm: string, began: string, signal: AbortSignal): Promise<boolean> {
  try {
    await fleet.follow(vm, (await fleet.locate(vm, signal)).host);
    return false;
  } catch (error) {
    signal.throwIfAborted();
    if (!(error instanceof SymvirtError) || error.exit !== "unreachable") throw error;
    const pids = await fleet.vmm.findProcesses(vm, began, signal).catch(() => undefined);
    if (pids?.length === 0) return true;
    await fleet.follow(vm, began);
    return false;
  }
}

/** How far the checkpoint may have gone, by the phases it has entered. */
function reachedBy(phases: readonly string[]): Reached {
  const entered = new Set(phases);
  if (["hold", "cut", "save", "keep", "undo:release"].some((p) => entered.has(p))) return "cut";
  if (["detach", "undo:attach"].some((p) => entered.has(p))) return "detach";
  return entered.has("drain") ? "drain" : "begin";
}
