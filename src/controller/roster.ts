/**
 * The jobs of the cluster, put together from what each VM's agent says of its own ranks. A rank belongs to
 * the VM that reported it first; another VM that claims it is not believed for that job.
 */
import type { GuestState, JobReport, RankReport } from "../protocol/messages.js";

export interface RosterRank {
  vm: string;
  report: RankReport;
}

export interface RosterJob {
  job: string;
  worldSize: number;
  uid: number;
  ranks: Map<number, RosterRank>;
}

/** Once seen, whose rank it is and how large its job is does not change. */
/** Of one VM, over a session: a guest that invents jobs must not fill our memory. */
const MOST_JOBS = 256;

interface Ownership {
  worldSize: number;
  uid: number;
  owners: Map<number, string>;
}

export class Roster {
  readonly #states = new Map<string, GuestState>();
  readonly #ownership = new Map<string, Ownership>();
  readonly #untrusted = new Map<string, Set<string>>();
  /** All a VM ever told of. */
  readonly #told = new Map<string, Set<string>>();
  readonly #flooding = new Set<string>();

  /** Takes a VM's newest state. Returns complaints about it, empty when there are none. */
  update(vm: string, state: GuestState): string[] {
    const complaints: string[] = [];
    for (const report of state.jobs) {
      if (!this.#mayTell(vm, report.job)) {
        if (!this.#flooding.has(vm)) complaints.push(`${vm} has told of more than ${MOST_JOBS} jobs`);
        this.#flooding.add(vm);
        continue;
      }
      const complaint = this.#check(vm, report);
      if (complaint === undefined) continue;
      const jobs = this.#untrusted.get(vm) ?? new Set();
      if (!jobs.has(report.job)) complaints.push(complaint);
      jobs.add(report.job);
      this.#untrusted.set(vm, jobs);
    }
    this.#states.set(vm, state);
    return complaints;
  }

  state(vm: string): GuestState | undefined {
    return this.#states.get(vm);
  }

  /** Nothing is known of a VM any more (its channel went to another host, say); who owns which rank is kept. */
  forget(vm: string): void {
    this.#states.delete(vm);
  }

  trusted(vm: string, job: string): boolean {
    return this.#untrusted.get(vm)?.has(job) !== true;
  }

  /** Whether this VM may speak for this rank. */
  owns(vm: string, job: string, rank: number): boolean {
    return this.trusted(vm, job) && this.#ownership.get(job)?.owners.get(rank) === vm;
  }

  /** All jobs that a trusted VM reports now; of one that is over agents still tell that its ranks have left. */
  jobs(): RosterJob[] {
    const jobs = new Map<string, RosterJob>();
    for (const [vm, state] of this.#states) {
      for (const report of state.jobs) {
        const known = this.#ownership.get(report.job);
        if (known === undefined || !this.trusted(vm, report.job)) continue;
        const job = jobs.get(report.job) ?? {
          job: report.job,
          worldSize: known.worldSize,
          uid: known.uid,
          ranks: new Map<number, RosterRank>(),
        };
        for (const r of report.ranks)
          if (known.owners.get(r.rank) === vm) job.ranks.set(r.rank, { vm, report: r });
        jobs.set(report.job, job);
      }
    }
    const isOver = ({ ranks }: RosterJob) => [...ranks.values()].every((r) => r.report.state === "left");
    return [...jobs.values()].filter((job) => job.ranks.size === 0 || !isOver(job));
  }

  #mayTell(vm: string, job: string): boolean {
    const told = this.#told.get(vm) ?? new Set();
    if (!told.has(job) && told.size >= MOST_JOBS) return false;
    this.#told.set(vm, told.add(job));
    return true;
  }

  #check(vm: string, report: JobReport): string | undefined {
    const known = this.#ownership.get(report.job) ?? {
      worldSize: report.worldSize,
      uid: report.uid,
      owners: new Map<number, string>(),
    };
    if (known.worldSize !== report.worldSize)
      return `${vm} says that job ${report.job} has ${report.worldSize} ranks, others say ${known.worldSize}`;
    for (const r of report.ranks) {
      if (r.rank >= report.worldSize)
        return `${vm} reports rank ${r.rank} of a job of ${report.worldSize} ranks`;
      const owner = known.owners.get(r.rank);
      if (owner !== undefined && owner !== vm)
        return `${vm} claims rank ${r.rank} of job ${report.job}, which belongs to ${owner}`;
    }
    for (const r of report.ranks) known.owners.set(r.rank, vm);
    this.#ownership.set(report.job, known);
    return undefined;
  }
}
