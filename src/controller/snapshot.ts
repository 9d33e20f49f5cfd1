/** `symvirt status` as data: every VM, its agent, its jobs, and the cycle that runs or was interrupted. */
import type { DeviceReport, HolderReport, PeerReport, RankReport } from "../protocol/messages.js";
import type { SetPhase } from "./checkpoint/set-cycle.js";
import type { Phase } from "./cycle.js";
import type { Fleet } from "./fleet.js";
import { isAway } from "./movers.js";
import type { PeerPictures } from "./peer-pictures.js";
import { plainText } from "./plain-text.js";
import type { RosterJob } from "./roster.js";
import type { CycleProgress } from "./runner.js";
import type { CycleTarget } from "./state/journal.js";

export interface VmStatus {
  vm: string;
  host: string;
  /** As the VMM says, "unknown" when it does not answer. */
  status: string;
  cards: string[];
  /** What is wrong with the VMM or the agent, empty when both answer. */
  trouble: string;
  agent: { answers: boolean; version: string; hostname: string };
  devices: DeviceReport[];
  holders: HolderReport[];
}

export interface JobStatus {
  job: string;
  worldSize: number;
  ranks: RankStatus[];
  /** Ranks that run over tcp with every peer, though they could use a card, by VM. */
  away: { vm: string; ranks: number[] }[];
}

export interface RankStatus {
  rank: number;
  vm: string;
  report: RankReport;
  /** Only if asked for: the rank's picture of each of its peers; null if it has not told it in time. */
  peers?: PeerReport[] | null;
}

export interface RunningCycle extends CycleProgress<Phase | SetPhase> {
  cycle: number;
  verb: string;
  vm: string;
  from: string;
  to: string;
  pid: number;
}

export interface StatusReport {
  schemaVersion: 1;
  cluster: string;
  running: RunningCycle | { verb: string; pid: number } | null;
  interrupted: {
    cycle: number;
    vm: string;
    from: string;
    to: string;
    phase: string;
    message: string;
    /** "cycle 7 (restart c3) was interrupted" */
    what: string;
  } | null;
  vms: VmStatus[];
  jobs: JobStatus[];
}

export type KnownVmm = Map<string, { host: string; status: string; cards: string[]; trouble?: string }>;

/**
 * Puts together what is known now. `known` is what the VMMs said; guests are taken from the fleet's links.
 * `pictures` of peers go in if there are any.
 */
export function snapshotFleet(
  fleet: Fleet,
  known: KnownVmm,
  pictures?: ReadonlyMap<string, PeerPictures>,
): Pick<StatusReport, "vms" | "jobs"> {
  const vms = Object.keys(fleet.cluster.vms).map((vm): VmStatus => {
    const there = known.get(vm);
    const link = fleet.links().find((l) => l.vm === vm);
    const hello = link?.hello;
    const state = hello === undefined ? undefined : fleet.roster.state(vm);
    const silence =
      link === undefined || hello !== undefined ? "" : `the agent does not answer: ${link.trouble}`;
    return {
      vm,
      host: there?.host ?? fleet.hostOf(vm),
      status: there?.status ?? "unknown",
      cards: there?.cards ?? [],
      trouble: there?.trouble ?? silence,
      agent: {
        answers: hello !== undefined,
        version: plainText(hello?.agentVersion ?? ""),
        hostname: plainText(hello?.hostname ?? ""),
      },
      devices: state?.devices ?? [],
      holders: state?.holders ?? [],
    };
  });
  const jobs = fleet.roster.jobs().map((job) => ({
    job: job.job,
    worldSize: job.worldSize,
    ranks: [...job.ranks.values()]
      .map(({ vm, report }) => ({
        rank: report.rank,
        vm,
        report: { ...report, detail: plainText(report.detail) },
        ...(pictures === undefined ? {} : { peers: pictures.get(vm)?.of(job.job, report.rank) ?? null }),
      }))
      .sort((a, b) => a.rank - b.rank),
    away: awayByVm(job),
  }));
  return { vms, jobs };
}

function awayByVm(job: RosterJob): JobStatus["away"] {
  const away = new Map<string, number[]>();
  for (const { vm, report } of job.ranks.values())
    if (isAway(report))
      away.set(
        vm,
        [...(away.get(vm) ?? []), report.rank].sort((a, b) => a - b),
      );
  return [...away].map(([vm, ranks]) => ({ vm, ranks })).sort((a, b) => a.vm.localeCompare(b.vm));
}

export function runningCycle(
  target: CycleTarget,
  verb: string,
  progress: CycleProgress<Phase | SetPhase>,
): RunningCycle {
  const { cycle, vm, from, to } = target;
  return { cycle, verb, vm, from, to, pid: process.pid, ...progress };
}
