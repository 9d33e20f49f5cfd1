/** What the bench `convergence` needs of the world: the lab gives it the real one, its tests a scripted one. */
import type { BenchJob } from "./blackout-world.js";

/** How pre-copy is made to end. cooperative: symvirt holds the ranks; autoConverge: QEMU slows the guest down. */
export const ways = ["cooperative", "autoConverge"] as const;
export type Way = (typeof ways)[number];

export interface Move {
  startMs: number;
  endMs: number;
  /** False: the time was up, and it was rolled back. */
  completed: boolean;
}

export interface ConvergenceLab {
  readonly accelerator: "kvm" | "tcg";
  /** Starts a job on all VMs whose ranks write more memory than a move can send; resolves when it iterates. */
  startJob(): Promise<BenchJob>;
  /** Moves the VM that carries no rank 0 to the host where it is not; rolls back after `capMs`. */
  move(way: Way, capMs: number): Promise<Move>;
  close(): Promise<void>;
}

export interface ConvergenceWorld {
  open(): Promise<ConvergenceLab>;
  /** Resolves after that long, or fails when the bench is stopped. */
  wait(ms: number): Promise<void>;
  say(line: string): void;
}
