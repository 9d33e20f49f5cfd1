/** Finishes a checkpoint or restart whose controller was killed: back to what was, or on if the checkpoint is there. */
import { CheckpointStore } from "../../checkpoint/store.js";
import { ControlDesk } from "../operation.js";
import { greetAgents } from "../plan.js";
import { pictureRanks } from "../rank-spans.js";
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
    const { ops, now, first } =
      verb === "restart"
        ? await ofRestart(session, interrupted)
        : await ofCheckpoint(session, interrupted, request.signal);
    const steps = [...pictureRanks(session.fleet, now).values()]
      .filter(({ report }) => report.cycle === now.cycle)
      .map(({ report }) => report.step);
    const end = await runSet({ session, ...request }, desk, verb, now, ops, first, {
      step: Math.max(interrupted.step, ...steps),
      quietJobs: interrupted.quietJobs,
    });
    const report = setReport("abort", now, end);
    if (verb === "checkpoint") new CheckpointStore(session.cluster).sweep();
    outcome = { report, unfinished: end.unfinished };
    return { ...report, complete: verb === "restart" || report.complete };
  } finally {
    await desk.close(outcome);
  }
}

interface Recovery {
  ops: SetOps;
  now: CycleTarget;
  first: SetEvent;
}

async function ofRestart({ fleet }: Session, { target, phases }: InterruptedCycle): Promise<Recovery> {
  const vms = target.set?.vms ?? [];
  const ops = new RestartOps({ fleet, vms, checkpoint: undefined });
  const runs = phases.includes("place");
  if (runs) for (const { vm, host } of vms) await fleet.follow(vm, host);
  // It only ends or notes what was started: no rank has to be met.
  return { ops, now: { ...target, jobs: [] }, first: { type: "recover", reached: runs ? "place" : "begin" } };
}

async function ofCheckpoint(
  session: Session,
  { target, phases }: InterruptedCycle,
  signal: AbortSignal,
): Promise<Recovery> {
  const { fleet, cluster } = session;
  const vms = target.set?.vms ?? [];
  for (const { vm, host } of vms) await fleet.follow(vm, await hostOf(fleet, vm, host, signal));
  const ops = new CheckpointOps({
    ...{ fleet, target, vms, plan: new Map(), method: "background-snapshot", level: 1 },
    pending: undefined,
  });
  const reached = reachedBy(phases);
  // Before anything is asked of the guests: one that stands still does not answer.
  if (reached === "cut") await ops.run("release", signal);
  const silent = await greetAgents(
    fleet,
    vms.map((v) => v.vm),
    signal,
  );
  const living = new Set(fleet.roster.jobs().map((j) => j.job));
  // Without jobs that have ended meanwhile: their agents answer and know nothing of them.
  const jobs = target.jobs.filter((j) => living.has(j.job) || j.ranks.some((r) => silent.has(r.vm)));
  const store = new CheckpointStore(cluster);
  const id = target.set?.checkpoint ?? "";
  const isKept = store.list().some((entry) => entry.id === id && entry.state === "complete");
  return {
    ops,
    now: { ...target, jobs },
    first: { type: "recover", reached: isKept ? "kept" : reached },
  };
}

/** Where the VM is; where it was when the checkpoint began, if it does not answer: the others are to be let go in any case. */
async function hostOf(fleet: Fleet, vm: string, began: string, signal: AbortSignal): Promise<string> {
  try {
    return (await fleet.locate(vm, signal)).host;
  } catch (error) {
    signal.throwIfAborted();
    if (error instanceof SymvirtError && error.exit === "unreachable") return began;
    throw error;
  }
}

/** How far the checkpoint may have gone, by the phases it has entered. */
function reachedBy(phases: readonly string[]): Reached {
  const entered = new Set(phases);
  if (["hold", "cut", "save", "keep", "undo:release"].some((p) => entered.has(p))) return "cut";
  if (["detach", "undo:attach"].some((p) => entered.has(p))) return "detach";
  return entered.has("drain") ? "drain" : "begin";
}
