/** What the server and its policies need of a controller; controller-verbs.ts is the one there is. */
import type { EvacuateRequest, EvacuationReport } from "../controller/evacuate.js";
import type { FenceOutcome } from "../controller/fence.js";
import type { VmSight } from "../controller/liveness.js";
import type { MigrateRequest } from "../controller/migrate.js";
import type { CycleReport, SetReport } from "../controller/report.js";
import type { CheckpointRequest } from "../controller/checkpoint/checkpoint.js";
import type { RestartRequest } from "../controller/checkpoint/restart.js";
import type { SetPhase } from "../controller/checkpoint/set-cycle.js";
import type { Phase } from "../controller/cycle.js";
import type { CycleProgress } from "../controller/runner.js";
import type { AbortOutcome, CompleteCheckpoint } from "../controller/script.js";
import type { StatusReport } from "../controller/snapshot.js";
import type { CycleTarget } from "../controller/state/journal.js";

/** Of one running operation. */
export interface Run {
  /** Aborted: roll back, then resolve or reject as the verb does. */
  signal: AbortSignal;
  onProgress: (target: CycleTarget, progress: CycleProgress<Phase | SetPhase>) => void;
}

export type MigrateOrder = Pick<MigrateRequest, "vm" | "to" | "strategy" | "limits">;
export type EvacuateOrder = Pick<EvacuateRequest, "host" | "to" | "strategy" | "limits">;
export type CheckpointOrder = Pick<CheckpointRequest, "name" | "strategy">;
export interface RestartOrder extends Pick<RestartRequest, "on" | "gone" | "avoid"> {
  /** Id of a complete checkpoint. */
  checkpoint: string;
}

export interface CheckpointVerbs {
  checkpoint(order: CheckpointOrder, run: Run): Promise<SetReport>;
  restart(order: RestartOrder, run: Run): Promise<SetReport>;
  /** Undoes a restart whose controller was killed, if there is one. */
  endCutOff(gone: readonly string[], run: Run): Promise<void>;
  /** Reads every part; what is wrong, undefined if nothing is. */
  verify(id: string, signal: AbortSignal): Promise<string | undefined>;
  /** Oldest first. */
  complete(signal: AbortSignal): Promise<CompleteCheckpoint[]>;
}

export interface Verbs {
  status(options: { peers: boolean }, signal: AbortSignal): Promise<StatusReport>;
  migrate(order: MigrateOrder, run: Run): Promise<CycleReport>;
  evacuate(order: EvacuateOrder, run: Run): Promise<EvacuationReport>;
  /** Of a cycle of another process, or of one that was interrupted. */
  abort(order: { gone?: readonly string[] }, run: Run): Promise<AbortOutcome>;
  /** Undefined while a controller acts. */
  look(signal: AbortSignal): Promise<VmSight[] | undefined>;
  fence(vms: readonly string[], signal: AbortSignal): Promise<FenceOutcome>;
  /** Undefined: the cluster file names no store for them. */
  checkpoints: CheckpointVerbs | undefined;
}
