/** Whether the jobs on a VM can take part in a cycle: every rank known, willing and well. */
import type { GuestState, RankReport } from "../protocol/messages.js";
import type { Findings } from "./findings.js";
import { isAway } from "./movers.js";
import { plainText } from "./plain-text.js";
import type { RosterJob } from "./roster.js";
import type { CycleTarget } from "./state/journal.js";
import type { Strategy } from "./strategy.js";

/** The jobs of the target; what stands against them goes into `findings`. */
export function checkJobs(
  vm: string,
  jobs: readonly RosterJob[],
  findings: Findings,
  strategy: Strategy = "park",
): CycleTarget["jobs"] {
  const targets: CycleTarget["jobs"] = [];
  for (const job of jobs) {
    const ranks = [...job.ranks.values()];
    const isHere = ranks.some((r) => r.vm === vm && !isGone(r.report));
    if (!isHere) continue;
    const known = [...job.ranks.keys()].sort((a, b) => a - b);
    if (known.length < job.worldSize) {
      const where = [...new Set(ranks.map((r) => r.vm))].join(", ");
      findings.refuse(
        `job ${job.job} has ${job.worldSize} ranks, but only ${known.length} of them (${known.join(", ")}) are reported, by ${where}`,
        "every VM of the job must be in the cluster file, with its agent running and its ranks started by `symvirt mpirun`",
      );
    }
    for (const { vm: at, report } of ranks) checkRank(job.job, { vm: at, report, strategy }, findings);
    targets.push({
      job: job.job,
      worldSize: job.worldSize,
      ranks: ranks.map((r) => ({
        rank: r.report.rank,
        vm: r.vm,
        epoch: r.report.epoch,
        tcpOnly: r.report.tcpOnly,
        away: isAway(r.report),
      })),
    });
  }
  return targets;
}

function isGone(report: RankReport): boolean {
  return report.state === "left" || report.state === "lost";
}

function checkRank(
  job: string,
  { vm, report, strategy }: { vm: string; report: RankReport; strategy: Strategy },
  findings: Findings,
): void {
  const who = `rank ${report.rank} of job ${job} on ${vm} (pid ${report.pid})`;
  const detail = plainText(report.detail);
  // A live rank whose way back to the card has failed runs on over tcp.
  if (strategy === "live" && isAway(report)) return;
  switch (report.state) {
    case "running":
      if (report.route !== "openib" && !report.tcpOnly)
        findings.refuse(
          `${who} runs over ${report.route}, not over openib`,
          "bring openib back with `symvirt recover VM`, or use --strategy live",
        );
      return;
    case "inert":
      findings.refuse(
        `${who} uses the card without symvirt: ${detail || "its library is inert"}`,
        "start the job with `symvirt mpirun`; `symvirt doctor` says what stands against it",
      );
      return;
    case "init":
      findings.refuse(`${who} is still in MPI_Init`, "try again in a moment");
      return;
    case "failed":
      findings.refuse(
        `${who} is held after a failed step: ${detail || `error ${report.error}`}`,
        "run `symvirt abort`",
      );
      return;
    case "lost":
    case "left":
      findings.refuse(
        `${who} ${report.state === "lost" ? "has died" : "has left MPI"}: the job is ending`,
        "wait for its end",
      );
      return;
    case "draining":
    case "closing":
    case "parked":
    case "opening":
    case "held":
      findings.refuse(
        `${who} is ${report.state}: a cycle is unfinished`,
        "see `symvirt status`, `symvirt abort`",
      );
  }
}

/** Whoever uses the card of the VM and is no rank of these jobs. */
export function checkHolders(
  vm: string,
  state: GuestState,
  jobs: CycleTarget["jobs"],
  findings: Findings,
): void {
  const names = new Set(jobs.map((j) => j.job));
  const pids = new Set(state.jobs.filter((j) => names.has(j.job)).flatMap((j) => j.ranks.map((r) => r.pid)));
  for (const holder of state.holders) {
    if (pids.has(holder.pid)) continue;
    const who = holder.pid === 0 ? "the kernel" : `pid ${holder.pid} (${plainText(holder.command, 64)})`;
    findings.refuse(
      `the card of ${vm} is in use by ${who}: ${plainText(holder.what, 96)}`,
      `end it in ${vm} first`,
    );
  }
}
