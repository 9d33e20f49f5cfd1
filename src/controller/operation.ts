/** One cycle from its target to its report, with the control socket open for `status` and `abort`. */

import { anySignal } from "../signals.js";
import { askPeers } from "./ask-peers.js";
import type { SetPhase } from "./checkpoint/set-cycle.js";
import type { CycleEvent, Phase } from "./cycle.js";
import { greetAgents } from "./plan.js";
import { pictureRanks, type RankPictures, rankSpans } from "./rank-spans.js";
import type { CycleReport } from "./report.js";
import { type CycleProgress, CycleRunner, type RunnerOptions } from "./runner.js";
import type { Session } from "./session.js";
import { type KnownVmm, runningCycle, type StatusReport, snapshotFleet } from "./snapshot.js";
import { type ControlSocket, serveControl } from "./state/control-socket.js";
import type { CycleTarget } from "./state/journal.js";
import { followTraffic, type Sampling } from "./traffic-sampler.js";

export interface Operation {
  session: Session;
  verb: CycleReport["verb"];
  /** Aborted: the cycle is rolled back and `run` still resolves with its report. */
  signal: AbortSignal;
  limits: RunnerOptions["limits"];
  onProgress?: (target: CycleTarget, progress: CycleProgress) => void;
  settleMs?: number;
  /** Follow the ranks' counters while the cycle runs. */
  sampling?: Sampling;
}

/** What tells where a cycle is now. */
interface Running {
  progress(): CycleProgress<Phase | SetPhase>;
}

/** A controller's answers to other processes while it plans and runs. */
export class ControlDesk {
  readonly abort = new AbortController();
  readonly #session: Session;
  readonly #verb: string;
  #runner: { runner: Running; target: CycleTarget; verb: string } | undefined;
  #socket: ControlSocket | undefined;
  #ended: (outcome: object) => void = () => undefined;
  readonly #end = new Promise<object>((resolve) => {
    this.#ended = resolve;
  });

  constructor(session: Session, verb: string) {
    this.#session = session;
    this.#verb = verb;
  }

  async open(): Promise<void> {
    this.#socket = await serveControl(this.#session.cluster.state, async ({ ask, peers }) => {
      if (ask === "status") return await this.#status(peers === true);
      this.abort.abort(new Error("`symvirt abort` was called"));
      return await this.#end;
    });
  }

  /** Between two cycles of an operation. */
  planning(): void {
    this.#runner = undefined;
  }

  running(runner: Running, target: CycleTarget, verb: string): void {
    this.#runner = { runner, target, verb };
  }

  /** Tells those who wait for the end, then closes. */
  async close(outcome: object): Promise<void> {
    this.#ended(outcome);
    await this.#socket?.close();
  }

  async #status(peers: boolean): Promise<StatusReport> {
    const { cluster, fleet } = this.#session;
    const pictures = peers ? await askPeers(fleet, new AbortController().signal) : undefined;
    const running =
      this.#runner === undefined
        ? { verb: this.#verb, pid: process.pid }
        : runningCycle(this.#runner.target, this.#runner.verb, this.#runner.runner.progress());
    // The VMM serves one client, and that is the cycle: its word on each VM's status is not asked here.
    const known: KnownVmm = new Map(
      Object.keys(cluster.vms).map((vm) => [
        vm,
        { host: fleet.hostOf(vm), status: "managed", cards: Object.keys(fleet.placement.of(vm).cards) },
      ]),
    );
    return {
      schemaVersion: 1,
      cluster: cluster.name,
      running,
      interrupted: null,
      ...snapshotFleet(fleet, known, pictures),
    };
  }
}

/** Runs the cycle and asks the ranks for their counters again at its end. */
export async function runOperation(
  operation: Operation,
  desk: ControlDesk,
  target: CycleTarget,
  begin: { event: CycleEvent; before: RankPictures; resumeFrom?: RunnerOptions["resumeFrom"] },
): Promise<CycleReport & { unfinished: boolean }> {
  const { session, verb, signal, limits, onProgress } = operation;
  const runner = new CycleRunner({
    fleet: session.fleet,
    target,
    journal: session.journal,
    limits,
    ...(begin.resumeFrom === undefined ? {} : { resumeFrom: begin.resumeFrom }),
    ...(onProgress === undefined ? {} : { onProgress: (p: CycleProgress) => onProgress(target, p) }),
    ...(operation.settleMs === undefined ? {} : { settleMs: operation.settleMs }),
  });
  desk.running(runner, target, verb);
  const stop = anySignal([signal, desk.abort.signal]);
  const onStop = () => {
    const reason: unknown = stop.reason;
    runner.abort(reason instanceof Error ? reason.message : String(reason));
  };
  stop.addEventListener("abort", onStop, { once: true });
  const { sampling } = operation;
  const endSampling = sampling === undefined ? undefined : followTraffic(session.fleet, target, sampling);
  try {
    const running = runner.run(begin.event);
    if (stop.aborted) onStop();
    const end = await running;
    const vms = [...new Set([target.vm, ...target.jobs.flatMap((j) => j.ranks.map((r) => r.vm))])];
    // Counters only: an agent that does not answer any more leaves its last words in the report.
    if (target.jobs.length > 0) await greetAgents(session.fleet, vms, new AbortController().signal);
    return {
      schemaVersion: 1,
      cycle: target.cycle,
      verb,
      strategy: target.strategy,
      outcome: end.outcome,
      message: end.message,
      vm: target.vm,
      from: target.from,
      to: target.to,
      startedAt: end.startedAt,
      totalMs: end.totalMs,
      phases: end.spans.end(end.holds),
      holds: end.holds,
      ranks: rankSpans(begin.before, pictureRanks(session.fleet, target)),
      preCopy: end.preCopy,
      unfinished: end.unfinished,
    };
  } finally {
    endSampling?.();
    stop.removeEventListener("abort", onStop);
  }
}
