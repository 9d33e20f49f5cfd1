/** Which strategy a cycle can follow, and over what its jobs run before and after it. */
import type { Cluster } from "./cluster-file.js";
import { isUp } from "./conditions.js";
import type { Findings } from "./findings.js";
import { changesRoutes, isAway, moversOf, whyWhole } from "./movers.js";
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
export function chooseStrategy(
  vm: string,
  wanted: Strategy,
  jobs: readonly RosterJob[],
  findings: Findings,
  backBefore: ReadonlySet<string> = new Set(),
): Strategy {
  if (wanted === "park") return "park";
  for (const job of jobs) refuseBesideAway(vm, job, findings, backBefore);
  const reasons = jobs.map(whyPark).filter((reason) => reason !== undefined);
  for (const reason of reasons) findings.note(`the jobs are parked: ${reason}`);
  return reasons.length === 0 ? "live" : "park";
}

/** Routes are drained by what was sent over the card, so all others of the job must lead over it. */
function refuseBesideAway(
  vm: string,
  { job, ranks }: RosterJob,
  findings: Findings,
  backBefore: ReadonlySet<string>,
): void {
  const all = [...ranks.values()];
  const other = all.find((r) => r.vm !== vm && isAway(r.report) && !backBefore.has(r.vm));
  if (other === undefined || all.every((r) => r.vm !== vm || isAway(r.report))) return;
  findings.refuse(
    `rank ${other.report.rank} of job ${job} on ${other.vm} runs over tcp while those on ${vm} use the card`,
    `\`symvirt recover ${other.vm}\` brings it back once there is a card for ${other.vm}`,
  );
}

/** Why the ranks of a job have to be parked; undefined when it can run on over tcp. */
export function whyPark({ job, ranks }: RosterJob): string | undefined {
  const reports = [...ranks.values()].map((r) => r.report);
  const alone = reports.find((r) => r.tcpOnly);
  if (alone !== undefined && reports.some((r) => !r.tcpOnly))
    return `rank ${alone.rank} of job ${job} knows tcp only while others use the card`;
  return undefined;
}

export interface RouteQuestion {
  vm: string;
  /** The jobs of the VM as the cycle's target has them, and as their ranks say. */
  targets: CycleTarget["jobs"];
  jobs: readonly RosterJob[];
  roster: Roster;
  cards: CycleTarget["cards"];
  /** The VM keeps a card with an active port through the cycle. */
  keeps: boolean;
}

/** Over what the jobs go: what a live cycle's target says of them. A note says why openib does not come back. */
export function planRoutes(
  question: RouteQuestion,
  findings: Findings,
): Pick<CycleTarget, "jobs" | "leave" | "comeBack"> {
  const { vm, targets, jobs, roster, cards, keeps } = question;
  const gets = keeps || cards.some((c) => c.destination !== null);
  const willHaveCard = (name: string) =>
    name === vm ? gets : roster.state(name)?.devices.some(isUp) === true;
  const planned = targets.map((target) => {
    const job = jobs.find((j) => j.job === target.job);
    const moving = job === undefined ? undefined : moversOf(vm, job);
    return moving === undefined ? target : { ...target, moving };
  });
  const movers = planned.flatMap((j) => j.ranks.filter((r) => changesRoutes(j, r.rank)));
  return {
    jobs: planned,
    leave: movers.length === 0 || movers.some((r) => !r.away),
    comeBack: canComeBack(vm, movers, willHaveCard, findings),
  };
}

/** Why a job changes over as a whole, and which of its ranks run over tcp already and are left there. */
export function noteRanks(job: RosterJob, moving: readonly number[] | undefined, findings: Findings): void {
  const reason = whyWhole(job);
  if (reason !== undefined && moving === undefined)
    findings.note(`the ranks of job ${job.job} change over all at once: ${reason}`);
  const staying = [...job.ranks.values()].filter(
    (r) => isAway(r.report) && moving?.includes(r.report.rank) === false,
  );
  for (const vm of new Set(staying.map((r) => r.vm))) {
    const ranks = staying.filter((r) => r.vm === vm).map((r) => r.report.rank);
    findings.note(
      `${rankList(ranks)} of job ${job.job} on ${vm} ${ranks.length === 1 ? "runs" : "run"} over tcp, and will as before`,
      `\`symvirt recover ${vm}\` brings openib back once it has a card`,
    );
  }
}

/** Whether openib can carry the ranks afterwards: every VM with one of them has a card then. */
function canComeBack(
  vm: string,
  movers: CycleTarget["jobs"][number]["ranks"],
  willHaveCard: (vm: string) => boolean,
  findings: Findings,
): boolean {
  // Ranks that know tcp only have nothing to come back to, and say so at once.
  if (movers.every((r) => r.tcpOnly)) return true;
  const without = [...new Set([vm, ...movers.map((r) => r.vm)])].filter((name) => !willHaveCard(name));
  if (without.length === 0) return true;
  findings.note(
    `the ranks stay on tcp: ${without.join(", ")} will have no card with an active port`,
    `\`symvirt recover ${without[0]}\` brings openib back once there is one`,
  );
  return false;
}

/** "rank 3", "ranks 0, 1": at most a dozen are named. */
export function rankList(ranks: readonly number[]): string {
  const named = ranks.slice(0, 12).join(", ");
  return `rank${ranks.length === 1 ? "" : "s"} ${named}${ranks.length > 12 ? ", …" : ""}`;
}
