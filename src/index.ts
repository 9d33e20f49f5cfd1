/** The public API of symvirt; everything else is internal. */

export { type Cluster, loadCluster } from "./controller/cluster-file.js";
export type { CheckpointRequest } from "./controller/checkpoint/checkpoint.js";
export type { RestartRequest } from "./controller/checkpoint/restart.js";
export type { FenceOutcome, FenceRequest } from "./controller/fence.js";
export type { VmSight } from "./controller/liveness.js";
export type { MigrateRequest } from "./controller/migrate.js";
export type { OpenibBackRequest } from "./controller/openib-back.js";
export type { RecoverRequest } from "./controller/recover.js";
export type { EvacuateRequest, EvacuationMove, EvacuationReport } from "./controller/evacuate.js";
export type { EvacuationPlan, PlannedMove } from "./controller/evacuation-plan.js";
export type { Finding } from "./controller/findings.js";
export type { MigrationPlan } from "./controller/plan.js";
export type { CheckpointPlan } from "./controller/checkpoint/plan-checkpoint.js";
export type { RestartPlan } from "./controller/checkpoint/plan-restart.js";
export type {
  CycleOutcome,
  CyclePhase,
  CycleReport,
  PhaseSpan,
  RankSpan,
  SetReport,
} from "./controller/report.js";
export {
  type AbortOutcome,
  type CompleteCheckpoint,
  Controller,
  type ControllerOptions,
} from "./controller/script.js";
export type { Sampling, TrafficSample } from "./controller/traffic-sampler.js";
export type { JobStatus, RankStatus, StatusReport, VmStatus } from "./controller/snapshot.js";
export type { PeerReport, RankReport } from "./protocol/messages.js";
export { ExitCode, type ExitCodeName, SymvirtError } from "./errors.js";
