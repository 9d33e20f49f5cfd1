/** What a cycle leaves behind: the journal's summary, `--json` of the acting verbs, and the timeline's input. */
import type { RankTimings, Route, Traffic } from "../protocol/messages.js";
import type { Strategy } from "./strategy.js";

export type CycleOutcome = "done" | "rolled-back" | "needs-operator";

/** Phases in the order an undisturbed migrate goes through them. */
export const cyclePhases = [
  "prepare", // destination VMM launched and listening; the job is not touched
  "drain", // from the order to leave the card until the last rank has nothing on the wire there
  "tear-down", // until the last rank has proven that it does not hold the card
  "wait", // until the agents report SymVirt wait
  "detach",
  "pre-copy",
  "held", // beside pre-copy: the ranks of the moving VM stand still so that it can end
  "downtime",
  "attach",
  "link-up",
  "re-init", // from SymVirt signal until every rank runs over openib again
  "roll-back", // everything done to undo, when something failed
] as const;
export type CyclePhase = (typeof cyclePhases)[number];

export interface PhaseSpan {
  vm: string;
  phase: CyclePhase;
  /** Milliseconds since the cycle began. */
  startMs: number;
  ms: number;
}

export interface RankSpan {
  rank: number;
  vm: string;
  /** It changed the routes to all its peers; a rank that did not keeps its epoch. */
  moved: boolean;
  timings: RankTimings;
  before: { route: Route; epoch: number; openib: Traffic; tcp: Traffic };
  after: { route: Route; epoch: number; openib: Traffic; tcp: Traffic };
}

/** One hold of the moving VM's ranks. Times in milliseconds since the cycle began. */
export interface HoldReport {
  cause: string;
  orderedMs: number;
  /** Every rank of the VM stood still; null: not all of them did. */
  heldMs: number | null;
  /** They were told to go on. */
  releasedMs: number | null;
  /** All went on; null: it was not seen. */
  goneOnMs: number | null;
  /** Ranks that did not stand still within the deadline "hold", or at all; a sentence each. */
  late: string[];
}

/** What a checkpoint or restart of all VMs leaves behind; `--json` of these verbs. */
export interface SetReport {
  schemaVersion: 1;
  cycle: number;
  verb: "checkpoint" | "restart" | "abort";
  strategy: Strategy;
  outcome: CycleOutcome;
  /** One sentence; for needs-operator it says exactly what a person must do. */
  message: string;
  /** Id of the checkpoint. */
  checkpoint: string;
  /** It is there and can be restarted from. */
  complete: boolean;
  /** Milliseconds each VM did not run for the capture; null where it was not captured now. */
  vms: { vm: string; host: string; pauseMs: number | null }[];
  /** Milliseconds in which no VM reached another; null when the wires were not cut. */
  withoutNetworkMs: number | null;
  /** Of a checkpoint that is complete: what was captured, and what it takes. */
  bytes: { raw: number; stored: number } | null;
  /** ISO 8601. */
  startedAt: string;
  totalMs: number;
  /** Milliseconds since the cycle began. */
  phases: { phase: string; startMs: number; ms: number }[];
}

export interface CycleReport {
  schemaVersion: 1;
  cycle: number;
  verb: "migrate" | "abort" | "recover";
  /** What was done, not what was asked for. */
  strategy: Strategy;
  outcome: CycleOutcome;
  /** One sentence; for needs-operator it says exactly what a person must do. */
  message: string;
  vm: string;
  from: string;
  to: string;
  /** ISO 8601. */
  startedAt: string;
  totalMs: number;
  phases: PhaseSpan[];
  ranks: RankSpan[];
  /** live: holds of the moving VM's ranks, so that pre-copy could end; empty when none was needed. */
  holds: HoldReport[];
  preCopy: { transferredBytes: number; downtimeMs: number } | null;
}
