/** What the demo needs of the world; lab-stage.ts gives it the real one, the tests a scripted one. */
import type { CycleReport } from "../controller/report.js";
import type { CounterReading, RankSample } from "./route-bytes.js";

export interface MigrationListener {
  say: (line: string) => void;
  reading: (reading: CounterReading) => void;
}

export interface Stage {
  /** "kvm" or "tcg". */
  readonly accelerator: string;
  /** Names of the VMs that run ranks, in rank order; the first is the one that moves. */
  readonly vms: readonly string[];
  /** Where the first VM is, and the host that is free. */
  readonly from: string;
  readonly spare: string;
  /** Management network of the guests. */
  readonly network: string;
  /** Copies a local program into every VM and returns its path there. */
  install(path: string): Promise<string>;
  /** Path of one of symvirt's own workloads in the guests. */
  workload(name: string): string;
  /** Runs a command in a VM; resolves with its exit code when it has ended. */
  run(vm: string, argv: readonly string[], onLine: (line: string) => void): Promise<number>;
  /** Fresh counters of every rank of every job; empty while there is none. */
  ranks(): Promise<RankSample[]>;
  /** Moves a VM; what each rank has moved so far is told several times a second meanwhile. */
  migrate(vm: string, to: string, told: MigrationListener): Promise<CycleReport>;
  /** Lets the controller go and takes the lab down (unless it is to be kept). Idempotent. */
  close(): Promise<void>;
}
