/** One checkpoint or restart from its target to its end, with the control socket open for `status` and `abort`. */
import { anySignal } from "../../signals.js";
import type { ControlDesk } from "../operation.js";
import type { SetReport } from "../report.js";
import type { CycleProgress } from "../runner.js";
import type { Session } from "../session.js";
import type { CycleTarget } from "../state/journal.js";
import type { SetEvent, SetPhase, SetVerb } from "./set-cycle.js";
import type { SetOps } from "./set-ops.js";
import { type SetEnd, SetRunner, type SetRunnerOptions } from "./set-runner.js";

export interface SetOperation {
  session: Session;
  signal: AbortSignal;
  onProgress?: ((target: CycleTarget, progress: CycleProgress<SetPhase>) => void) | undefined;
  settleMs?: number | undefined;
}

export async function runSet(
  { session, signal, onProgress, settleMs }: SetOperation,
  desk: ControlDesk,
  verb: SetVerb,
  target: CycleTarget,
  ops: SetOps,
  first: SetEvent,
  resumeFrom?: SetRunnerOptions["resumeFrom"],
): Promise<SetEnd> {
  const { set } = target;
  if (set === undefined) throw new Error("a cycle of all VMs without its VMs");
  const runner = new SetRunner({
    ...{ fleet: session.fleet, journal: session.journal, verb, target, ops },
    ...{ checkpoint: set.checkpoint, vms: set.vms },
    ...(resumeFrom === undefined ? {} : { resumeFrom }),
    ...(onProgress === undefined
      ? {}
      : { onProgress: (p: CycleProgress<SetPhase>) => onProgress(target, p) }),
    ...(settleMs === undefined ? {} : { settleMs }),
  });
  desk.running(runner, target, verb);
  const stop = anySignal([signal, desk.abort.signal]);
  const onStop = () => {
    const reason: unknown = stop.reason;
    runner.abort(reason instanceof Error ? reason.message : String(reason));
  };
  stop.addEventListener("abort", onStop, { once: true });
  try {
    const running = runner.run(first);
    if (stop.aborted) onStop();
    return await running;
  } finally {
    stop.removeEventListener("abort", onStop);
  }
}

/** What both verbs report alike. */
export function setReport(verb: SetReport["verb"], target: CycleTarget, end: SetEnd): SetReport {
  const { outcome, message, kept, startedAt, totalMs, phases } = end;
  return {
    ...{ schemaVersion: 1, cycle: target.cycle, verb, strategy: target.strategy, outcome, message },
    ...{ checkpoint: target.set?.checkpoint ?? "", complete: kept },
    vms: (target.set?.vms ?? []).map(({ vm, host }) => ({ vm, host, pauseMs: null })),
    ...{ withoutNetworkMs: null, bytes: null, startedAt, totalMs, phases },
  };
}
