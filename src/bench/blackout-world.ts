/** What the bench `blackout` needs of the world: the lab gives it the real one, its tests a scripted one. */
import type { Strategy } from "../controller/strategy.js";
import type { GapSample } from "./gap.js";

/** A job that runs, seen through its progress lines. */
export interface BenchJob {
  samples: readonly GapSample[];
  /** Tells it to end; fails unless it ends with the right result. */
  finish(): Promise<void>;
}

export interface CycleTimes {
  startMs: number;
  endMs: number;
  /** What was done, not what was asked for. */
  strategy: Strategy;
  /** QEMU's own, of the move. */
  downtimeMs: number;
}

export interface BenchLab {
  readonly accelerator: "kvm" | "tcg";
  /** Starts the stencil on all VMs; resolves when every rank runs over openib and it iterates. */
  startJob(): Promise<BenchJob>;
  /** Moves the VM that carries no rank 0 to the host where it is not. Fails unless the cycle is done. */
  cycle(strategy: Strategy): Promise<CycleTimes>;
  /** Seconds the port of a card takes to come up after its attach. */
  delayLinkUp(seconds: number): Promise<void>;
  close(): Promise<void>;
}

export interface BenchWorld {
  open(memoryMiB: number): Promise<BenchLab>;
  /** Resolves after that long, or fails when the bench is stopped. */
  wait(ms: number): Promise<void>;
  say(line: string): void;
}
