/** `symvirt restart`: plan, refuse, or start all VMs of a checkpoint again. */
import { CheckpointStore } from "../../checkpoint/store.js";
import { SymvirtError } from "../../errors.js";
import { stoppedPlanning } from "../stopped.js";
import { anySignal } from "../../signals.js";
import type { Cluster } from "../cluster-file.js";
import { ControlDesk } from "../operation.js";
import type { SetReport } from "../report.js";
import type { Session } from "../session.js";
import { planRestart, type RestartPlan, restartRefusal } from "./plan-restart.js";
import { RestartOps } from "./restart-ops.js";
import { runSet, type SetOperation, setReport } from "./run-set.js";

export interface RestartRequest extends Omit<SetOperation, "session"> {
  /** Id of the checkpoint. */
  id: string;
  /** By VM, the host it is to run on; others go where they were, or to a host that has a card for them. */
  on?: Readonly<Record<string, string>>;
  /** Hosts of which the caller vouches that they are off: nothing is asked of them. */
  gone?: readonly string[];
  /** Hosts that get no VM unless `on` says so. */
  avoid?: readonly string[];
  onPlan?: (plan: RestartPlan) => void;
  /** How much of the checkpoint has been read and compared with its hashes. */
  onVerify?: (doneBytes: number, totalBytes: number) => void;
}

/**
 * Plans only. Reads and compares every part of the checkpoint, which takes as long as it takes: before `within` takes the
 * lock, so that nobody waits for it.
 */
export async function planFromCheckpoint(
  cluster: Cluster,
  request: RestartRequest,
  within: (plan: (session: Session) => Promise<RestartPlan>) => Promise<RestartPlan>,
): Promise<RestartPlan> {
  const hold = await verified(cluster, request, request.signal);
  try {
    const { on = {}, gone = [], avoid = [], signal } = request;
    return await within((session) =>
      planRestart(session, { manifest: hold.manifest, on, gone, avoid, signal }),
    );
  } finally {
    hold.release();
  }
}

/** Holds a checkpoint all of whose parts are as they were written; else throws "refused". */
async function verified(cluster: Cluster, { id, onVerify }: RestartRequest, signal: AbortSignal) {
  const store = new CheckpointStore(cluster);
  const hold = store.hold(id, "restart");
  try {
    const { ok, parts } = await store.verify(id, {
      signal,
      ...(onVerify === undefined ? {} : { onProgress: onVerify }),
    });
    if (ok) return hold;
    const troubles = parts.filter((p) => !p.ok).map((p) => p.trouble);
    throw new SymvirtError("refused", `checkpoint ${id} is damaged: ${troubles.join("; ")}`, {
      hint: "restart from another: `symvirt checkpoints`",
    });
  } catch (error) {
    hold.release();
    throw error;
  }
}

/** Restarts under a session's lock. Throws SymvirtError when nothing was touched; otherwise the report tells. */
export async function restartSet(session: Session, request: RestartRequest): Promise<SetReport> {
  const { fleet, journal } = session;
  const { id, on = {}, gone = [], avoid = [] } = request;
  const desk = new ControlDesk(session, `restart ${id}`);
  await desk.open();
  let outcome: object = { error: "the operation ended before its cycle began" };
  try {
    const stop = anySignal([request.signal, desk.abort.signal]);
    const interrupted = (cause: unknown) => stoppedPlanning(stop, cause);
    const hold = await verified(session.cluster, request, stop).catch((error: unknown) => {
      throw stop.aborted ? interrupted(error) : error;
    });
    try {
      const { manifest, folder } = hold;
      const plan = await planRestart(session, { manifest, on, gone, avoid, signal: stop }).catch(
        (error: unknown) => {
          throw stop.aborted ? interrupted(error) : error;
        },
      );
      if (stop.aborted) throw interrupted(stop.reason);
      request.onPlan?.(plan);
      const refused = restartRefusal(plan);
      if (refused !== undefined) throw refused;
      const { target, vms } = plan;
      if (target === undefined) throw new SymvirtError("internal", "a plan without refusals has no target");
      session.lock.describe(`cycle ${target.cycle} (restart ${id})`);
      journal.append({ kind: "begin", pid: process.pid, verb: "restart", target });
      const ops = new RestartOps({ fleet, vms, checkpoint: { manifest, folder } });
      const end = await runSet({ session, ...request }, desk, "restart", target, ops, { type: "begin" });
      const report = { ...setReport("restart", target, end), complete: true };
      outcome = { report, unfinished: end.unfinished };
      return report;
    } finally {
      hold.release();
    }
  } catch (error) {
    if (error instanceof SymvirtError) outcome = { error: error.message };
    throw error;
  } finally {
    await desk.close(outcome);
  }
}
