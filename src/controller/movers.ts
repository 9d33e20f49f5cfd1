/**
 * Which ranks of a job change the routes to all their peers in a live cycle. The others change only those to
 * these ranks and keep openib among themselves, so a job may stand with some ranks away from the card: on tcp
 * with everybody. (docs/protocol.md, "Which routes change")
 */
import type { RankReport } from "../protocol/messages.js";
import type { RosterJob } from "./roster.js";
import type { CycleTarget } from "./state/journal.js";

type TargetJob = CycleTarget["jobs"][number];

/** Whether the rank is one of those. */
export function changesRoutes({ moving }: Pick<TargetJob, "moving">, rank: number): boolean {
  return moving === undefined || moving.includes(rank);
}

/** It runs over tcp with everybody, though it could use a card. (A way back that has failed leaves it so, too.) */
export function isAway({ route, state, tcpOnly }: Pick<RankReport, "route" | "state" | "tcpOnly">): boolean {
  return route === "tcp" && !tcpOnly && (state === "running" || state === "failed");
}

/** Why all ranks of the job have to change at once; undefined when they need not. */
export function whyWhole({ job, ranks }: RosterJob): string | undefined {
  const reports = [...ranks.values()].map((r) => r.report);
  const window = reports.find((r) => r.windows > 0);
  if (window !== undefined)
    return `rank ${window.rank} of job ${job} has ${window.windows} one-sided windows, and atomics by the card and by the processor on one word do not exclude each other`;
  const whole = reports.find((r) => r.wholeOnly);
  if (whole !== undefined)
    return `rank ${whole.rank} of job ${job} cannot tell the traffic of its peers apart`;
  return undefined;
}

/**
 * The ranks that change with the VM, ascending; undefined: all of the job. While ranks of other VMs are away
 * only those that are can change (`plan` refuses otherwise), and they come back together.
 */
export function moversOf(vm: string, job: RosterJob): number[] | undefined {
  const ranks = [...job.ranks.values()];
  const away = ranks.filter((r) => isAway(r.report));
  const own = ranks.filter((r) => r.vm === vm);
  const isWhole = whyWhole(job) !== undefined;
  const chosen = () => {
    if (!own.every((r) => isAway(r.report))) return isWhole ? ranks : own;
    // They have left in an earlier cycle: there is only the way back, which all that are away go at once.
    return away;
  };
  const numbers = chosen().map((r) => r.report.rank);
  return numbers.length === ranks.length ? undefined : numbers.sort((a, b) => a - b);
}
