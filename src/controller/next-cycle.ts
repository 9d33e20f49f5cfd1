/** Numbers of cycles and steps: ours, but a rank tells its own too, and that may be anything. */
import { SymvirtError } from "../errors.js";
import type { Roster, RosterRank } from "./roster.js";

/** So far ahead of the journal no rank can be, also when the journal was lost. */
const FAR = 2 ** 20;
/** As wide as the field on the wire (docs/protocol.md). */
const LAST = 2 ** 32 - 1;

/**
 * One more than the journal's last cycle and than any that a rank of these jobs has been in (the state folder may be
 * new). Ranks of other jobs do not count. Throws "refused" for a rank that names an impossible one.
 */
export function nextCycle(lastCycle: number, roster: Roster, jobs: readonly { job: string }[]): number {
  const taking = new Set(jobs.map(({ job }) => job));
  const ranks = roster
    .jobs()
    .filter(({ job }) => taking.has(job))
    .flatMap((job) => [...job.ranks.values()]);
  const liar = ranks.find(({ report }) => report.cycle > lastCycle + FAR);
  if (liar !== undefined) throw impossible(liar);
  const next = 1 + ranks.reduce((most, { report }) => Math.max(most, report.cycle), lastCycle);
  if (next > LAST)
    throw new SymvirtError(
      "refused",
      `the journal is at cycle ${lastCycle}, and there is no number after it`,
      {
        hint: "move the state folder away",
      },
    );
  return next;
}

/** The last step of an interrupted cycle: that of the journal, or one its ranks have been told after it. */
export function lastStep(journalled: number, reported: readonly number[]): number {
  return Math.max(journalled, ...reported.filter((step) => step <= journalled + FAR));
}

function impossible({ vm, report }: RosterRank): SymvirtError {
  return new SymvirtError(
    "refused",
    `rank ${report.rank} on ${vm} (pid ${report.pid}) says that it is in cycle ${report.cycle}, which never was`,
    { hint: "its process is broken or hostile: look into that guest, and end it" },
  );
}
