/** `symvirt migrate`: plan, refuse or run the cycle. */
import { SymvirtError } from "../errors.js";
import { anySignal } from "../signals.js";
import { Findings } from "./findings.js";
import { ControlDesk, type Operation, runOperation } from "./operation.js";
import { limitsInForce, type MigrationLimits } from "./limits.js";
import { type MigrationPlan, planMigration } from "./plan.js";
import { pictureRanks } from "./rank-spans.js";
import type { CycleReport } from "./report.js";
import type { Session } from "./session.js";
import { stoppedPlanning } from "./stopped.js";
import type { Strategy } from "./strategy.js";

export interface MigrateRequest {
  vm: string;
  to: string;
  /** Absent: the cluster file's, else the default. */
  strategy?: Strategy;
  limits?: MigrationLimits;
  signal: AbortSignal;
  onPlan?: (plan: MigrationPlan) => void;
  onProgress?: Operation["onProgress"];
  settleMs?: number;
  /** Follow the ranks' counters while the cycle runs. */
  sampling?: Operation["sampling"];
}

/** The error of a plan that refuses; undefined when it does not. */
export function refusal(plan: MigrationPlan): SymvirtError | undefined {
  const findings = new Findings();
  findings.list.push(...plan.findings);
  return findings.error(`${plan.vm} cannot be migrated to ${plan.to}`);
}

/** Migrates under a session's lock. Throws SymvirtError when nothing was touched; otherwise the report tells. */
export async function migrateVm(session: Session, request: MigrateRequest): Promise<CycleReport> {
  const desk = new ControlDesk(session, `migrate ${request.vm} to ${request.to}`);
  await desk.open();
  let outcome: object = { error: "the operation ended before its cycle began" };
  try {
    const { unfinished, ...report } = await migrateAtDesk(session, desk, request);
    outcome = { report, unfinished };
    return report;
  } catch (error) {
    if (error instanceof SymvirtError) outcome = { error: error.message };
    throw error;
  } finally {
    await desk.close(outcome);
  }
}

/** The same at a desk that is open: one of several migrations of an operation. */
export async function migrateAtDesk(
  session: Session,
  desk: ControlDesk,
  request: MigrateRequest,
): Promise<CycleReport & { unfinished: boolean }> {
  const { vm, to, signal } = request;
  const { cluster, fleet, journal } = session;
  const stop = anySignal([signal, desk.abort.signal]);
  const asked = {
    ...(request.strategy === undefined ? {} : { strategy: request.strategy }),
    ...(request.limits === undefined ? {} : { limits: request.limits }),
  };
  const plan = await planMigration({ fleet, journal, vm, to, signal: stop, ...asked }).catch(
    (error: unknown) => {
      if (!stop.aborted) throw error;
      throw stoppedPlanning(stop, error);
    },
  );
  if (stop.aborted) throw stoppedPlanning(stop);
  request.onPlan?.(plan);
  const refused = refusal(plan);
  if (refused !== undefined) throw refused;
  const { target } = plan;
  if (target === undefined) throw new SymvirtError("internal", "a plan without refusals has no target");
  const from = fleet.placement.of(vm);
  if (from.host !== target.from) {
    const cards = Object.fromEntries(
      target.cards.flatMap((c) => (c.source === null ? [] : [[c.tag, c.source]])),
    );
    fleet.placement.write(vm, { host: target.from, cards });
  }
  session.lock.describe(`cycle ${target.cycle} (migrate ${vm} to ${to})`);
  journal.append({ kind: "begin", pid: process.pid, verb: "migrate", target });
  const limits = limitsInForce(cluster, request.limits);
  return await runOperation(
    {
      session,
      verb: "migrate",
      signal,
      limits,
      ...(request.onProgress === undefined ? {} : { onProgress: request.onProgress }),
      ...(request.settleMs === undefined ? {} : { settleMs: request.settleMs }),
      ...(request.sampling === undefined ? {} : { sampling: request.sampling }),
    },
    desk,
    target,
    { event: { type: "begin" }, before: pictureRanks(fleet, target) },
  );
}
