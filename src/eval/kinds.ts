/** Phases by who works in them, as the table's columns and the bars' colours have them. */
import type { PhaseTime } from "./world.js";

export interface Kind {
  /** Colour class of the drawing. */
  kind: string;
  words: string;
  phases: readonly string[];
}

/** In the order of a cycle. */
export const kinds: readonly Kind[] = [
  { kind: "p-idle", words: "preparing, waiting", phases: ["prepare", "wait"] },
  { kind: "p-rank", words: "ranks change over", phases: ["drain", "tear-down", "re-init"] },
  { kind: "p-card", words: "hot-plug", phases: ["detach", "attach"] },
  { kind: "p-copy", words: "pre-copy", phases: ["pre-copy"] },
  { kind: "p-stop", words: "downtime", phases: ["downtime"] },
  { kind: "p-link", words: "link-up", phases: ["link-up"] },
];

/** What is in none of the kinds above: the phases of a checkpoint and a restart. */
export const otherKind: Kind = { kind: "p-save", words: "checkpoint, restart", phases: [] };

export function kindOf(phase: string): Kind {
  return kinds.find((kind) => kind.phases.includes(phase)) ?? otherKind;
}

/** Time in the phases of a kind. */
export function timeIn(kind: Kind, phases: readonly PhaseTime[]): number {
  return phases.reduce((sum, { phase, ms }) => (kindOf(phase) === kind ? sum + ms : sum), 0);
}
