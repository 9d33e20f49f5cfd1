/** `symvirt checkpoint`: plan, refuse, or take a checkpoint of all VMs as one consistent cut. */
import { bytesOf } from "../../checkpoint/manifest.js";
import { CheckpointStore } from "../../checkpoint/store.js";
import { SymvirtError } from "../../errors.js";
import { anySignal } from "../../signals.js";
import type { CaptureMethod } from "../../vmm/driver.js";
import { sentence } from "../errors-in-words.js";
import { ControlDesk } from "../operation.js";
import type { SetReport } from "../report.js";
import type { Session } from "../session.js";
import { stoppedPlanning } from "../stopped.js";
import type { Strategy } from "../strategy.js";
import { CheckpointOps } from "./checkpoint-ops.js";
import { type CheckpointPlan, checkpointRefusal, planCheckpoint } from "./plan-checkpoint.js";
import { runSet, type SetOperation, setReport } from "./run-set.js";

export { captureMethods } from "../../vmm/driver.js";

export interface CheckpointRequest extends Omit<SetOperation, "session"> {
  /** The operator's name for it, part of its id. */
  name?: string;
  /** Absent: the cluster file's, else the default. */
  strategy?: Strategy;
  /** Absent: background snapshots, where every host can; else the VMs stand still until their memory is written. */
  capture?: CaptureMethod;
  onPlan?: (plan: CheckpointPlan) => void;
}

/** Takes a checkpoint under a session's lock. Throws SymvirtError when nothing was touched; otherwise the report tells. */
export async function takeCheckpoint(session: Session, request: CheckpointRequest): Promise<SetReport> {
  const { cluster, fleet, journal } = session;
  const store = new CheckpointStore(cluster);
  const desk = new ControlDesk(session, "checkpoint");
  await desk.open();
  let outcome: object = { error: "the operation ended before its cycle began" };
  try {
    const stop = anySignal([request.signal, desk.abort.signal]);
    store.sweep();
    const { strategy, capture } = request;
    const plan = await planCheckpoint(session, {
      signal: stop,
      ...(strategy === undefined ? {} : { strategy }),
      ...(capture === undefined ? {} : { capture }),
    }).catch((error: unknown) => {
      if (!stop.aborted) throw error;
      throw stoppedPlanning(stop, error);
    });
    if (stop.aborted) throw stoppedPlanning(stop);
    request.onPlan?.(plan);
    const refused = checkpointRefusal(plan);
    if (refused !== undefined) throw refused;
    if (plan.target === undefined)
      throw new SymvirtError("internal", "a plan without refusals has no target");
    const what = `checkpoint of ${plan.vms.map((v) => v.vm).join(", ")}`;
    const pending = store.begin({ name: request.name, what, neededBytes: plan.room?.neededBytes ?? 0 });
    try {
      const target = { ...plan.target, set: { checkpoint: pending.id, vms: plan.vms } };
      session.lock.describe(`cycle ${target.cycle} (checkpoint ${pending.id})`);
      journal.append({ kind: "begin", pid: process.pid, verb: "checkpoint", target });
      const { vms, method, facts } = plan;
      const ops = new CheckpointOps({ fleet, target, vms, plan: facts, method, pending, level: store.level });
      const end = await runSet({ session, ...request }, desk, "checkpoint", target, ops, { type: "begin" });
      const { pauses, withoutNetworkMs } = ops.times;
      const report: SetReport = {
        ...setReport("checkpoint", target, end),
        vms: vms.map(({ vm, host }) => ({ vm, host, pauseMs: pauses.get(vm) ?? null })),
        withoutNetworkMs: withoutNetworkMs === 0 ? null : withoutNetworkMs,
        bytes: end.kept ? bytesOf(store.read(pending.id)) : null,
      };
      if (end.kept && store.keep !== undefined) report.message += pruned(store, store.keep);
      outcome = { report, unfinished: end.unfinished };
      return report;
    } finally {
      try {
        pending.abandon();
      } catch {
        // The next checkpoint sweeps what is left; how this one ended must be told.
      }
    }
  } catch (error) {
    if (error instanceof SymvirtError) outcome = { error: error.message };
    throw error;
  } finally {
    await desk.close(outcome);
  }
}

/** Older ones that cannot be removed cost the new one nothing: told at the end of its message. */
function pruned(store: CheckpointStore, keep: number): string {
  try {
    store.prune(keep);
    return "";
  } catch (error) {
    return `; but older ones could not be removed: ${sentence(error)}`;
  }
}
