/** `symvirt evacuate`: every VM of a host moves away, one cycle after the other, until one does not succeed. */
import { SymvirtError } from "../errors.js";
import { anySignal } from "../signals.js";
import { type EvacuationPlan, type PlannedMove, planEvacuation } from "./evacuation-plan.js";
import { Findings } from "./findings.js";
import type { MigrationLimits } from "./limits.js";
import { migrateAtDesk } from "./migrate.js";
import { ControlDesk, type Operation } from "./operation.js";
import type { CycleReport } from "./report.js";
import type { Session } from "./session.js";
import { stoppedPlanning } from "./stopped.js";
import type { Strategy } from "./strategy.js";

export interface EvacuateRequest {
  host: string;
  /** Hosts the VMs may go to, in this order; absent: all others. */
  to?: readonly string[];
  /** Absent: the cluster file's, else the default. */
  strategy?: Strategy;
  limits?: MigrationLimits;
  /** Aborted: a running cycle is rolled back, no further one begins, and the report tells. */
  signal: AbortSignal;
  onPlan?: (plan: EvacuationPlan) => void;
  onMove?: (move: PlannedMove, index: number) => void;
  onProgress?: Operation["onProgress"];
  settleMs?: number;
}

export interface EvacuationMove extends PlannedMove {
  /** "failed": it is where `report` says, or, without one, on its host untouched. */
  state: "moved" | "failed" | "not begun";
  /** Of its cycle; null when none was begun. */
  report: CycleReport | null;
}

export interface EvacuationReport {
  schemaVersion: 1;
  verb: "evacuate";
  host: string;
  /** "stopped": some VMs are still on the host, every job runs. */
  outcome: "done" | "stopped" | "needs-operator";
  /** One sentence: what is where, and why it stopped. */
  message: string;
  /** ISO 8601. */
  startedAt: string;
  totalMs: number;
  moves: EvacuationMove[];
}

/** The error of a plan that refuses; undefined when it does not. */
export function evacuationRefusal(plan: EvacuationPlan): SymvirtError | undefined {
  const findings = new Findings();
  findings.list.push(...plan.findings);
  return findings.error(`${plan.host} cannot be evacuated`);
}

/**
 * Evacuates under one lock, so that nobody comes between two migrations. Throws SymvirtError when nothing was
 * touched; otherwise the report tells.
 */
export async function evacuateHost(session: Session, request: EvacuateRequest): Promise<EvacuationReport> {
  const { host, signal } = request;
  const { fleet, journal } = session;
  const startedAt = new Date().toISOString();
  const began = performance.now();
  const desk = new ControlDesk(session, `evacuate ${host}`);
  await desk.open();
  let answer: object = { error: "the evacuation was stopped before a cycle began" };
  const stop = anySignal([signal, desk.abort.signal]);
  try {
    const asked = {
      ...(request.strategy === undefined ? {} : { strategy: request.strategy }),
      ...(request.limits === undefined ? {} : { limits: request.limits }),
    };
    const plan = await planUnlessStopped(
      planEvacuation({
        ...{ fleet, journal, host, signal: stop, ...asked },
        ...(request.to === undefined ? {} : { to: request.to }),
      }),
      stop,
    );
    request.onPlan?.(plan);
    const refused = evacuationRefusal(plan);
    if (refused !== undefined) throw refused;
    const moves = plan.moves.map((move): EvacuationMove => ({ ...move, state: "not begun", report: null }));
    let cause: string | undefined;
    for (const [i, move] of moves.entries()) {
      if (stop.aborted) {
        cause = reasonOf(stop);
        break;
      }
      desk.planning();
      session.lock.describe(`evacuate ${host} (${i + 1} of ${moves.length})`);
      request.onMove?.(move, i);
      try {
        const { unfinished, ...report } = await migrateAtDesk(session, desk, {
          ...{ vm: move.vm, to: move.to, signal, ...asked },
          ...(request.onProgress === undefined ? {} : { onProgress: request.onProgress }),
          ...(request.settleMs === undefined ? {} : { settleMs: request.settleMs }),
        });
        move.report = report;
        answer = { report, unfinished };
      } catch (error) {
        if (!(error instanceof SymvirtError) || error.exit === "internal") throw error;
        // Nothing at all was touched: the refusal, or the stop, is the operation's own end.
        if (i === 0) throw error;
        cause = error.message;
        move.state = stop.aborted ? "not begun" : "failed";
        break;
      }
      move.state = move.report.outcome === "done" ? "moved" : "failed";
      if (move.state === "failed") {
        cause = move.report.message;
        break;
      }
    }
    return {
      schemaVersion: 1,
      verb: "evacuate",
      host,
      ...verdict(host, moves, cause),
      startedAt,
      totalMs: Math.round(performance.now() - began),
      moves,
    };
  } catch (error) {
    if (error instanceof SymvirtError) answer = { error: error.message };
    throw error;
  } finally {
    await desk.close(answer);
  }
}

async function planUnlessStopped(
  planning: Promise<EvacuationPlan>,
  stop: AbortSignal,
): Promise<EvacuationPlan> {
  try {
    const plan = await planning;
    if (!stop.aborted) return plan;
  } catch (error) {
    if (!stop.aborted) throw error;
  }
  throw stoppedPlanning(stop);
}

function reasonOf(stop: AbortSignal): string {
  const reason: unknown = stop.reason;
  return reason instanceof Error ? reason.message : String(reason);
}

/** What is where, in words. */
function verdict(
  host: string,
  moves: readonly EvacuationMove[],
  cause: string | undefined,
): Pick<EvacuationReport, "outcome" | "message"> {
  const moved = moves.filter((m) => m.state === "moved").map((m) => `${m.vm} to ${m.to}`);
  if (cause === undefined) {
    const message = moves.length === 0 ? `${host} has no VM` : `${host} is empty: ${moved.join(", ")}`;
    return { outcome: "done", message };
  }
  const failed = moves.find((m) => m.state === "failed");
  const left = moves.filter((m) => m.state === "not begun").map((m) => m.vm);
  const parts = [
    moved.length === 0 ? "no VM has moved" : `moved: ${moved.join(", ")}`,
    ...(failed === undefined ? [] : [`${failed.vm} did not move`]),
    ...(left.length === 0 ? [] : [`still on ${host}, untouched: ${left.join(", ")}`]),
  ];
  const outcome = failed?.report?.outcome === "needs-operator" ? "needs-operator" : "stopped";
  return { outcome, message: `the evacuation of ${host} stopped: ${cause} (${parts.join("; ")})` };
}
