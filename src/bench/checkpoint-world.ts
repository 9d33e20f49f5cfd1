/** What the bench `checkpoint` needs of the world: the lab gives it the real one, its tests a scripted one. */
import type { CaptureMethod } from "../vmm/driver.js";
import type { BenchJob } from "./blackout-world.js";

export interface Captured {
  startMs: number;
  endMs: number;
  /** Of each VM. */
  pausesMs: number[];
  withoutNetworkMs: number;
  bytes: { raw: number; stored: number };
}

export interface CheckpointLab {
  readonly accelerator: "kvm" | "tcg";
  /** Starts the stencil on all VMs; resolves when every rank runs over openib and it iterates. */
  startJob(): Promise<BenchJob>;
  /** Takes a checkpoint of all VMs and removes it from the store. Fails unless it is complete. */
  checkpoint(method: CaptureMethod): Promise<Captured>;
  /** QEMU's own snapshot of each VM, removed again; milliseconds each stood still. */
  snapshotSave(): Promise<number[]>;
  /** A checkpoint, the death of every VM, and the restart from it; milliseconds of the restart. */
  restart(): Promise<number>;
  close(): Promise<void>;
}

export interface CheckpointWorld {
  open(memoryMiB: number): Promise<CheckpointLab>;
  /** Resolves after that long, or fails when the bench is stopped. */
  wait(ms: number): Promise<void>;
  say(line: string): void;
}
