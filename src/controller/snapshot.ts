/** `symvirt status` as data: every VM, its agent, its jobs, and the cycle that runs or was interrupted. */
import type { DeviceReport, HolderReport, RankReport } from "../protocol/messages.js";
import type { Fleet } from "./fleet.js";
import { plainText } from "./plain-text.js";
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
  ranks: { rank: number; vm: string; report: RankReport }[];
}

export interface RunningCycle extends CycleProgress {
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
  interrupted: { cycle: number; vm: string; from: string; to: string; phase: string; message: string } | null;
  vms: VmStatus[];
  jobs: JobStatus[];
}

export type KnownVmm = Map<string, { host: string; status: string; cards: string[]; trouble?: string }>;

/** Puts together what is known now. `known` is what the VMMs said; guests are taken from the fleet's links. */
export function snapshotFleet(fleet: Fleet, known: KnownVmm): Pick<StatusReport, "vms" | "jobs"> {
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
      }))
      .sort((a, b) => a.rank - b.rank),
  }));
  return { vms, jobs };
}

export function runningCycle(target: CycleTarget, verb: string, progress: CycleProgress): RunningCycle {
  const { cycle, vm, from, to } = target;
  return { cycle, verb, vm, from, to, pid: process.pid, ...progress };
}
