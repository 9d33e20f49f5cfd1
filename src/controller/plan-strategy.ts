/** Which strategy a cycle can follow, and over what its jobs run before and after it. */
import type { Cluster } from "./cluster-file.js";
import { isUp } from "./conditions.js";
import type { Findings } from "./findings.js";
import type { Roster, RosterJob } from "./roster.js";
import type { CycleTarget } from "./state/journal.js";
import { DEFAULT_STRATEGY, type Strategy } from "./strategy.js";

/** What is asked for: the command's word, else the cluster file's, else the default. */
export function wantedStrategy(cluster: Cluster, asked: Strategy | undefined): Strategy {
  return asked ?? cluster.limits.strategy ?? DEFAULT_STRATEGY;
}

/** The jobs that have a rank on the VM. */
export function jobsOn(vm: string, jobs: readonly RosterJob[]): RosterJob[] {
  return jobs.filter((job) =>
    [...job.ranks.values()].some(
      ({ vm: at, report }) => at === vm && report.state !== "left" && report.state !== "lost",
    ),
  );
}

/** live only if every job of the VM can; a note says why not. */
export function chooseStrategy(wanted: Strategy, jobs: readonly RosterJob[], findings: Findings): Strategy {
  if (wanted === "park") return "park";
  const reasons = jobs.map(whyPark).filter((reason) => reason !== undefined);
  for (const reason of reasons) findings.note(`the jobs are parked: ${reason}`);
  return reasons.length === 0 ? "live" : "park";
}

function whyPark({ job, ranks }: RosterJob): string | undefined {
  const reports = [...ranks.values()].map((r) => r.report);
  const window = reports.find((r) => r.windows > 0);
  // Atomics by the card and by the processor on one word do not exclude each other.
  if (window !== undefined)
    return `rank ${window.rank} of job ${job} has ${window.windows} one-sided windows, whose atomics cannot change over to tcp`;
  const alone = reports.find((r) => r.tcpOnly);
  if (alone !== undefined && reports.some((r) => !r.tcpOnly))
    return `rank ${alone.rank} of job ${job} knows tcp only while others use the card`;
  return undefined;
}

/** Whether the ranks have to leave the card. A job half on each route is refused. */
export function mustLeave(jobs: readonly RosterJob[], findings: Findings): boolean {
  const reports = jobs.flatMap((j) => [...j.ranks.values()].map((r) => r.report));
  const able = reports.filter((r) => !r.tcpOnly);
  const onTcp = able.filter((r) => r.route === "tcp");
  if (able.length === 0) return true;
  if (onTcp.length > 0 && onTcp.length < able.length)
    findings.refuse(
      `ranks ${onTcp.map((r) => r.rank).join(", ")} run over tcp, the others over openib`,
      "a cycle may be unfinished: `symvirt status`",
    );
  return onTcp.length === 0;
}

export interface ReturnQuestion {
  vm: string;
  jobs: readonly RosterJob[];
  roster: Roster;
  cards: CycleTarget["cards"];
  /** The VM keeps a card with an active port through the cycle. */
  keeps: boolean;
}

/** Whether openib can carry the jobs afterwards: every VM with a rank of them has a card then. */
export function canComeBack(question: ReturnQuestion, findings: Findings): boolean {
  const { vm, jobs, roster, cards, keeps } = question;
  // Ranks that know tcp only have nothing to come back to, and say so at once.
  if (jobs.every((j) => [...j.ranks.values()].every((r) => r.report.tcpOnly))) return true;
  const others = new Set(jobs.flatMap((j) => [...j.ranks.values()].map((r) => r.vm)));
  others.delete(vm);
  const without = [...others].filter((other) => !roster.state(other)?.devices.some(isUp));
  if (!keeps && !cards.some((c) => c.destination !== null)) without.unshift(vm);
  if (without.length === 0) return true;
  findings.note(
    `the ranks stay on tcp: ${without.join(", ")} will have no card with an active port`,
    `\`symvirt recover ${without[0]}\` brings openib back once there is one`,
  );
  return false;
}
