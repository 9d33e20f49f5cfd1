/**
 * The script API: what the command line's verbs are made of, for programs.
 *
 * @example
 * const controller = await Controller.open("cluster.yaml");
 * try {
 *   const report = await controller.migrate({ vm: "vm1", to: "h3" });
 *   console.log(report.message);
 * } finally {
 *   await controller.close();
 * }
 */
import { CheckpointStore } from "../checkpoint/store.js";
import { SymvirtError } from "../errors.js";
import type { RankReport } from "../protocol/messages.js";
import { type CheckpointRequest, takeCheckpoint } from "./checkpoint/checkpoint.js";
import { type CheckpointPlan, planCheckpoint } from "./checkpoint/plan-checkpoint.js";
import type { RestartPlan } from "./checkpoint/plan-restart.js";
import { planFromCheckpoint, type RestartRequest, restartSet } from "./checkpoint/restart.js";
import { type Cluster, loadCluster } from "./cluster-file.js";
import { type EvacuateRequest, type EvacuationReport, evacuateHost } from "./evacuate.js";
import { type EvacuationPlan, planEvacuation } from "./evacuation-plan.js";
import { type FenceOutcome, type FenceRequest, fenceVms } from "./fence.js";
import { Hold } from "./hold.js";
import { lookAtVms, type VmSight } from "./liveness.js";
import type { MigrationLimits } from "./limits.js";
import { type MigrateRequest, migrateVm } from "./migrate.js";
import { bringOpenibBack, type OpenibBackRequest } from "./openib-back.js";
import { knownHost, knownVm, type MigrationPlan, planMigration } from "./plan.js";
import { type RecoverRequest, recoverCycle } from "./recover.js";
import type { CycleReport, SetReport } from "./report.js";
import { openSession, openStateFolder, type Session, type SessionOptions } from "./session.js";
import type { StatusReport } from "./snapshot.js";
import { askControl } from "./state/control-socket.js";
import { lockHolders } from "./state/lock.js";
import { readStatus } from "./status.js";
import type { Strategy } from "./strategy.js";
import { qemuVmm } from "./vmm.js";

export type ControllerOptions = Pick<SessionOptions, "vmm" | "timing"> & { settleMs?: number };

export interface CompleteCheckpoint {
  id: string;
  /** ISO 8601. */
  at: string;
  vms: string[];
}

export interface AbortOutcome {
  /** "nothing": no cycle was running or interrupted. */
  outcome: CycleReport["outcome"] | "nothing";
  message: string;
  report: CycleReport | SetReport | null;
}

const never = new AbortController().signal;

export class Controller {
  readonly cluster: Cluster;
  readonly #options: ControllerOptions;
  #held: { session: Session; hold: Hold } | undefined;

  private constructor(cluster: Cluster, options: ControllerOptions) {
    this.cluster = cluster;
    this.#options = options;
  }

  /** Reads the cluster file (or takes one already read). Nothing is connected before a verb is called. */
  static async open(file: string | Cluster, options: ControllerOptions = {}): Promise<Controller> {
    return new Controller(typeof file === "string" ? loadCluster(file) : file, options);
  }

  /** What a migration would do and what stands against it; nothing is touched. */
  async plan(request: {
    vm: string;
    to: string;
    strategy?: Strategy;
    limits?: MigrationLimits;
    signal?: AbortSignal;
  }): Promise<MigrationPlan> {
    const { vm, to, signal = never } = request;
    knownVm(this.cluster, vm);
    knownHost(this.cluster, to);
    return await this.#within(`plan ${vm} to ${to}`, false, ({ fleet, journal }) =>
      planMigration({ ...request, fleet, journal, signal }),
    );
  }

  /**
   * Moves a VM with its card under its running jobs. Throws SymvirtError if nothing was touched; after that the
   * report's outcome tells. Aborting the signal rolls the cycle back before this resolves.
   * Between `waitAll` and `signal` it does the move only, of a VM whose cards the script has detached.
   */
  async migrate(request: Omit<MigrateRequest, "signal"> & { signal?: AbortSignal }): Promise<CycleReport> {
    const { vm, to, signal = never } = request;
    knownVm(this.cluster, vm);
    knownHost(this.cluster, to);
    if (this.#held !== undefined) return await this.#held.hold.migrate(vm, to, signal);
    const settle = this.#options.settleMs === undefined ? {} : { settleMs: this.#options.settleMs };
    return await this.#within(`migrate ${vm} to ${to}`, true, (session) =>
      migrateVm(session, { ...settle, ...request, signal }),
    );
  }

  /** What an evacuation would do and what stands against it; nothing is touched. */
  async planEvacuation(
    request: Pick<EvacuateRequest, "host" | "to" | "strategy" | "limits"> & { signal?: AbortSignal },
  ): Promise<EvacuationPlan> {
    const { host, signal = never } = request;
    knownHost(this.cluster, host);
    return await this.#within(`plan the evacuation of ${host}`, false, ({ fleet, journal }) =>
      planEvacuation({ ...request, fleet, journal, signal }),
    );
  }

  /**
   * Moves every VM of a host away, one after the other, each as `migrate` does, to hosts with a free card and room.
   * Stops at the first that does not succeed, or when the signal is aborted; those already moved stay where they are.
   * Throws SymvirtError if nothing was touched; after that the report's outcome tells.
   */
  async evacuate(
    request: Omit<EvacuateRequest, "signal"> & { signal?: AbortSignal },
  ): Promise<EvacuationReport> {
    const { host, signal = never } = request;
    knownHost(this.cluster, host);
    const settle = this.#options.settleMs === undefined ? {} : { settleMs: this.#options.settleMs };
    return await this.#within(`evacuate ${host}`, true, (session) =>
      evacuateHost(session, { ...settle, ...request, signal }),
    );
  }

  /** Brings openib back for the jobs of a VM that run over tcp. Throws SymvirtError if nothing was touched. */
  async recover(request: Omit<OpenibBackRequest, "signal"> & { signal?: AbortSignal }): Promise<CycleReport> {
    const { vm, signal = never } = request;
    knownVm(this.cluster, vm);
    const settle = this.#options.settleMs === undefined ? {} : { settleMs: this.#options.settleMs };
    return await this.#within(`recover ${vm}`, true, (session) =>
      bringOpenibBack(session, { ...settle, ...request, signal }),
    );
  }

  /** What a checkpoint would do and what stands against it; nothing is touched. */
  async planCheckpoint(
    request: Pick<CheckpointRequest, "strategy" | "capture"> & { signal?: AbortSignal } = {},
  ): Promise<CheckpointPlan> {
    const { signal = never } = request;
    return await this.#within("plan of a checkpoint", false, (session) =>
      planCheckpoint(session, { ...request, signal }),
    );
  }

  /**
   * Takes a checkpoint of all VMs as one consistent cut. Throws SymvirtError if nothing was touched; after that the
   * report's outcome tells. Aborting the signal brings everything back before this resolves.
   */
  async checkpoint(
    request: Omit<CheckpointRequest, "signal"> & { signal?: AbortSignal } = {},
  ): Promise<SetReport> {
    const { signal = never } = request;
    return await this.#within("checkpoint", true, (session) =>
      takeCheckpoint(session, { settleMs: this.#options.settleMs, ...request, signal }),
    );
  }

  /** The complete checkpoints in the store, oldest first. Throws "usage" when the cluster file names none. */
  checkpoints(): CompleteCheckpoint[] {
    return new CheckpointStore(this.cluster).list().flatMap(({ id, state, manifest }) => {
      if (state !== "complete" || manifest === undefined) return [];
      return [{ id, at: manifest.createdAt, vms: manifest.vms.map(({ vm }) => vm) }];
    });
  }

  /** What a restart would do and what stands against it; the checkpoint is read and verified, nothing is touched. */
  async planRestart(
    request: Omit<RestartRequest, "signal"> & { signal?: AbortSignal },
  ): Promise<RestartPlan> {
    const { signal = never } = request;
    return await planFromCheckpoint(this.cluster, { ...request, signal }, (plan) =>
      this.#within(`plan of a restart of ${request.id}`, false, plan),
    );
  }

  /**
   * Starts all VMs of a checkpoint again, none of which may still run. Throws SymvirtError if nothing was started;
   * after that the report's outcome tells. If it fails, what was started is ended.
   */
  async restart(request: Omit<RestartRequest, "signal"> & { signal?: AbortSignal }): Promise<SetReport> {
    const { signal = never } = request;
    return await this.#within(`restart ${request.id}`, true, (session) =>
      restartSet(session, { settleMs: this.#options.settleMs, ...request, signal }),
    );
  }

  /**
   * Every VM, agent, job and the running cycle. A VM that does not answer is shown as such. With `peers` each
   * rank also tells the route and the bytes of each of its peers.
   */
  async status(signal: AbortSignal = never, options: { peers?: boolean } = {}): Promise<StatusReport> {
    return await readStatus(this.cluster, { ...this.#options, signal, peers: options.peers === true });
  }

  /** Which VMs live; undefined while a controller acts. A host that does not answer is shown as such. */
  async look(signal: AbortSignal = never): Promise<VmSight[] | undefined> {
    openStateFolder(this.cluster.state);
    const vmm = this.#options.vmm ?? qemuVmm(this.cluster);
    return await lookAtVms(this.cluster, { ...this.#options, vmm, signal });
  }

  /** Proves these VMs dead, killing what is left of them, unless all of them live. See fence.ts. */
  async fence(request: Omit<FenceRequest, "signal"> & { signal?: AbortSignal }): Promise<FenceOutcome> {
    const { vms, signal = never } = request;
    for (const vm of vms) knownVm(this.cluster, vm);
    return await this.#within(`fence ${vms.join(", ")}`, true, (session) =>
      fenceVms(session, { ...request, signal }),
    );
  }

  /** All ranks of all jobs, with fresh counters. */
  async ranks(
    signal: AbortSignal = never,
  ): Promise<{ job: string; rank: number; vm: string; report: RankReport }[]> {
    const { jobs } = await this.status(signal);
    return jobs.flatMap(({ job, ranks }) => ranks.map((r) => ({ job, ...r })));
  }

  /** Ends the running cycle, of whatever controller, or finishes one whose controller was killed. */
  async abort(request: Partial<RecoverRequest> = {}): Promise<AbortOutcome> {
    const { signal = never } = request;
    openStateFolder(this.cluster.state);
    const answer = await askControl(this.cluster.state, { ask: "abort" }, signal);
    if (answer !== undefined) return outcomeOf(answer);
    const acting = lockHolders(this.cluster.state).find((h) => h.acting);
    if (acting !== undefined)
      throw new SymvirtError(
        "unreachable",
        `${acting.what} (pid ${acting.pid}) does not answer on its control socket`,
        {
          hint: `if it hangs, end process ${acting.pid} and run \`symvirt abort\` again`,
        },
      );
    const settle = this.#options.settleMs === undefined ? {} : { settleMs: this.#options.settleMs };
    const report = await this.#within("abort", true, (session) =>
      recoverCycle(session, { ...settle, ...request, signal }),
    );
    if (report === undefined)
      return { outcome: "nothing", message: "no cycle is running and none was interrupted", report: null };
    return { outcome: report.outcome, message: report.message, report };
  }

  /**
   * The paper's steps. Parks every rank of every job; resolves when no VM's card has a user. Then `detach`,
   * `migrate` and `attach` do just that, until `signal` lets the ranks run.
   */
  async waitAll(signal: AbortSignal = never): Promise<void> {
    if (this.#held !== undefined) throw new SymvirtError("usage", "the ranks are held already");
    const session = await openSession(this.cluster, { ...this.#options, what: "hold", acting: true });
    try {
      this.#held = { session, hold: await Hold.begin(session, signal) };
    } catch (error) {
      await session.close();
      throw error;
    }
  }

  /** Unplugs the cards of a tag from every VM, or one. Only between `waitAll` and `signal`. */
  async detach(request: { tag: string; vm?: string; signal?: AbortSignal }): Promise<void> {
    await this.#holding("detach").detach(request.tag, request.vm, request.signal ?? never);
  }

  /** Plugs in, under a tag, the card of this name of each VM's present host. Only between `waitAll` and `signal`. */
  async attach(request: { tag: string; device: string; vm?: string; signal?: AbortSignal }): Promise<void> {
    await this.#holding("attach").attach(request.tag, request.device, request.vm, request.signal ?? never);
  }

  /** Lets all ranks run over openib again; resolves when they do. */
  async signal(signal: AbortSignal = never): Promise<void> {
    await this.#holding("signal").signal(signal);
    await this.close();
  }

  /** Gives up what is open. Ranks that are held stay so: `symvirt abort` lets them go. Idempotent. */
  async close(): Promise<void> {
    const held = this.#held;
    this.#held = undefined;
    held?.hold.close();
    await held?.session.close();
  }

  #holding(verb: string): Hold {
    if (this.#held !== undefined) return this.#held.hold;
    throw new SymvirtError("usage", `${verb} needs the ranks held: call waitAll first`);
  }

  async #within<T>(what: string, acting: boolean, work: (session: Session) => Promise<T>): Promise<T> {
    const session = await openSession(this.cluster, { ...this.#options, what, acting });
    try {
      return await work(session);
    } finally {
      await session.close();
    }
  }
}

/** The running controller's answer to `abort`: ours, over a 0600 socket. */
function outcomeOf(answer: unknown): AbortOutcome {
  const { report, error } = answer as { report?: CycleReport | SetReport; error?: string };
  if (report === undefined)
    return {
      outcome: "rolled-back",
      message: error ?? "the operation was stopped before its cycle began",
      report: null,
    };
  return { outcome: report.outcome, message: report.message, report };
}
