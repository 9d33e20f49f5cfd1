/** What Prometheus is told. Labels come from fixed sets and the cluster file only, never from guests or clients. */
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client";
import type { CycleReport, SetReport } from "../controller/report.js";
import type { VmSight } from "../controller/liveness.js";
import { ExitCode } from "../errors.js";
import type { OperationView } from "./operations.js";

const seconds = [0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000];
const results: Readonly<Record<number, string>> = {
  [ExitCode.done]: "done",
  [ExitCode.refused]: "refused",
  [ExitCode.rolledBack]: "rolled-back",
  [ExitCode.needsOperator]: "needs-operator",
  [ExitCode.unreachable]: "unreachable",
};
const phases = [
  "watching",
  "checkpointing",
  "choosing",
  "fencing",
  "restarting",
  "waiting",
  "stuck",
] as const;

export class Metrics {
  readonly registry = new Registry();
  readonly #registers = [this.registry];
  readonly requests = this.#counter("http_requests_total", "Answers by route and status code", [
    "route",
    "code",
  ]);
  readonly alerts = this.#counter("alerts_total", "Alerts received, by what became of them", ["verdict"]);
  readonly restarts = this.#counter("restarts_total", "Restarts begun by the reactive policy", []);
  readonly #operations = this.#counter("operations_total", "Operations ended", ["verb", "by", "result"]);
  readonly #running = this.#gauge("operation_running", "1 while an operation of this verb runs", ["verb"]);
  readonly #phase = this.#gauge("policy_phase", "1 for the phase of the reactive policy", ["phase"]);
  readonly #stuck = this.#gauge(
    "policy_needs_operator",
    "1 while the reactive policy waits for a person, or makes no new checkpoints",
    [],
  );
  readonly #checkpointed = this.#gauge(
    "checkpoint_last_success_timestamp_seconds",
    "End of the last complete checkpoint: in the store when the server began, since then made through it",
    [],
  );
  readonly #pauses = this.#gauge(
    "checkpoint_pause_seconds",
    "How long the VM stood still in the last checkpoint",
    ["vm"],
  );
  readonly #cut = this.#gauge("checkpoint_network_cut_seconds", "How long no VM reached another in it", []);
  readonly #alive = this.#gauge("vm_process_alive", "1 if the VM's process was seen in the last look", [
    "vm",
  ]);
  readonly #agents = this.#gauge("vm_agent_answers", "1 if the VM's agent answered in the last look", ["vm"]);
  readonly #looked = this.#gauge("last_look_timestamp_seconds", "When VMs were last looked at", []);
  readonly #duration = this.#histogram("operation_duration_seconds", "Operations, from begin to end", [
    "verb",
  ]);
  readonly #spans = this.#histogram("phase_duration_seconds", "Phases of cycles, of each VM or of all", [
    "phase",
  ]);

  constructor(version: string) {
    collectDefaultMetrics({ register: this.registry });
    this.#gauge("build_info", "1, with the version", ["version"]).set({ version }, 1);
  }

  begun({ verb }: OperationView): void {
    this.#running.set({ verb }, 1);
  }

  ended(view: OperationView): void {
    const { verb, by, report, startedAt, endedAt, exitCode } = view;
    this.#running.set({ verb }, 0);
    this.#operations.inc({ verb, by, result: results[exitCode ?? -1] ?? "failed" });
    if (endedAt !== null)
      this.#duration.observe({ verb }, Math.max(0, Date.parse(endedAt) - Date.parse(startedAt)) / 1000);
    if (verb === "checkpoint" && exitCode === ExitCode.done) this.#checkpointed.set(Date.now() / 1000);
    const {
      phases: own = [],
      moves = [],
      vms = [],
      withoutNetworkMs = null,
    } = (report ?? {}) as Partial<Pick<SetReport, "phases" | "vms" | "withoutNetworkMs">> & {
      moves?: { report: CycleReport | null }[];
    };
    const ofOne: readonly string[] = ["migrate", "checkpoint", "restart"];
    const cycles = ofOne.includes(verb)
      ? [own]
      : verb === "evacuate"
        ? moves.map((m) => m.report?.phases ?? [])
        : [];
    for (const { phase, ms } of cycles.flat()) this.#spans.observe({ phase }, ms / 1000);
    if (verb !== "checkpoint") return;
    for (const { vm, pauseMs } of vms) if (pauseMs !== null) this.#pauses.set({ vm }, pauseMs / 1000);
    if (withoutNetworkMs !== null) this.#cut.set(withoutNetworkMs / 1000);
  }

  looked(sights: readonly VmSight[]): void {
    this.#looked.set(Date.now() / 1000);
    for (const { vm, process, agent } of sights) {
      this.#alive.set({ vm }, process === "alive" ? 1 : 0);
      this.#agents.set({ vm }, agent ? 1 : 0);
    }
  }

  /** A checkpoint that an earlier process made, or somebody else; `at` is ISO 8601. */
  checkpointAt(at: string | undefined): void {
    if (at !== undefined) this.#checkpointed.set(Date.parse(at) / 1000);
  }

  policy(name: (typeof phases)[number], needsOperator: boolean): void {
    for (const phase of phases) this.#phase.set({ phase }, phase === name ? 1 : 0);
    this.#stuck.set(needsOperator ? 1 : 0);
  }

  #counter<L extends string>(name: string, help: string, labelNames: L[]): Counter<L> {
    return new Counter({ name: `symvirt_${name}`, help, labelNames, registers: this.#registers });
  }

  #gauge<L extends string>(name: string, help: string, labelNames: L[]): Gauge<L> {
    return new Gauge({ name: `symvirt_${name}`, help, labelNames, registers: this.#registers });
  }

  #histogram<L extends string>(name: string, help: string, labelNames: L[]): Histogram<L> {
    return new Histogram({
      name: `symvirt_${name}`,
      help,
      labelNames,
      buckets: seconds,
      registers: this.#registers,
    });
  }
}
