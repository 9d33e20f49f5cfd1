/** A self-verifying MPI job in the guests of a lab, from its start to its verdict. */
import { afterAll, expect } from "vitest";
import { jobCommand } from "../../../src/demo/job-command.js";
import { type JobResult, parseProgress, parseResult } from "../../../src/demo/job-log.js";
import type { JobStatus } from "../../../src/index.js";
import { labExec, MANAGEMENT_SUBNET } from "../../../src/lab/index.js";
import type { E2eLab } from "./lab-fixture.js";
import { say, until } from "./progress.js";

export type RankSample = JobStatus["ranks"][number];

const START_MS = 180_000;
const GOES_ON_MS = 60_000;
const END_MS = 120_000;
const LONGEST_S = "1800";
let count = 0;

export interface JobOptions {
  args?: readonly string[];
  /** "NAME=value" for the ranks, by mpirun's -x. */
  env?: readonly string[];
  /** Do not wait until the ranks run over openib. */
  detached?: boolean;
}

export class Job {
  readonly program: string;
  readonly #lab: E2eLab;
  readonly #stopFile: string;
  readonly #lines: string[] = [];
  #iteration = -1;
  #result: JobResult | undefined;
  #code: number | undefined;
  #ended: Promise<number | null> = Promise.resolve(null);

  private constructor(lab: E2eLab, program: string) {
    this.#lab = lab;
    this.program = program;
    this.#stopFile = `/tmp/e2e-stop-${process.pid}-${++count}`;
  }

  /** Starts a workload over all VMs; resolves when every rank runs over openib and it iterates. */
  static async start(lab: E2eLab, program: string, options: JobOptions = {}): Promise<Job> {
    const job = new Job(lab, program);
    job.#launch(options);
    if (options.detached !== true) await job.#isUp();
    return job;
  }

  #launch({ args = [], env = [] }: JobOptions): void {
    const lab = this.#lab;
    const command = jobCommand(
      { vms: lab.vms, ranksPerVm: lab.shape.ranksPerVm, network: MANAGEMENT_SUBNET },
      `/opt/symvirt/build/workloads/${this.program}`,
      ["--seconds", LONGEST_S, "--stop-file", this.#stopFile, ...args],
    );
    command.splice(2, 0, ...env.flatMap((e) => ["-x", e]));
    this.#ended = labExec(lab.lab, "vm1", command, { onLine: (line) => this.#line(line) }).then(
      ({ code }) => {
        this.#code = code ?? -1;
        return code;
      },
    );
    this.#ended.catch(() => undefined);
  }

  #line(line: string): void {
    const progress = parseProgress(line);
    if (progress !== null) this.#iteration = progress.iteration;
    else {
      this.#lines.push(line);
      this.#result = parseResult(line.trim()) ?? this.#result;
    }
  }

  get iteration(): number {
    return this.#iteration;
  }

  get hasEnded(): boolean {
    return this.#code !== undefined;
  }

  /** What the job said besides its progress. */
  output(): string {
    return `${this.program}: ${this.#code === undefined ? "running" : `exit ${this.#code}`}, iteration ${this.#iteration}\n${this.#lines.slice(-40).join("\n")}`;
  }

  async #isUp(): Promise<void> {
    const started = performance.now();
    let seen = "";
    await until(
      `${this.program} over openib`,
      START_MS,
      async () => {
        if (this.hasEnded) throw new Error(`the job ended at its start. ${this.output()}`);
        const ranks = await this.ranks();
        seen = ranks.map((r) => `${r.rank}@${r.vm} ${r.report.state} ${r.report.route}`).join(", ");
        const well = ranks.every((r) => r.report.state === "running" && r.report.route === "openib");
        return ranks.length === this.#lab.worldSize && well && this.#iteration >= 0 ? true : undefined;
      },
      { pollMs: 400, why: () => `${seen}\n${this.output()}` },
    );
    say(`${this.program} runs over openib after ${((performance.now() - started) / 1000).toFixed(1)} s`);
  }

  /** Fresh pictures of all ranks of all jobs, by rank. */
  async ranks(): Promise<RankSample[]> {
    return (await this.#lab.status()).jobs.flatMap((j) => j.ranks);
  }

  /**
   * Every rank runs over openib, in an epoch that has grown by `epochs` since `before`, or by the same
   * few more where a handshake of openib stopped half way and all ranks opened the card anew. With `moved`
   * only the ranks on these VMs have left the card; the others are in the epoch they were in.
   */
  async expectOpenib(
    before?: readonly RankSample[],
    epochs?: number,
    moved?: ReadonlySet<string>,
  ): Promise<RankSample[]> {
    const ranks = await this.ranks();
    expect(
      ranks.map((r) => r.rank),
      this.output(),
    ).toEqual(Array.from({ length: this.#lab.worldSize }, (_, i) => i));
    for (const { rank, report } of ranks)
      expect({ rank, state: report.state, route: report.route, error: report.error }).toEqual({
        ...{ rank, state: "running", route: "openib", error: 0 },
      });
    if (before !== undefined && epochs !== undefined) {
      const growth = (r: RankSample) => r.report.epoch - (before[r.rank]?.report.epoch ?? 0);
      const stayed = ranks.filter((r) => moved?.has(r.vm) === false);
      expect(stayed.map(growth)).toEqual(stayed.map(() => 0));
      const grown = ranks.filter((r) => !stayed.includes(r)).map(growth);
      expect(new Set(grown).size, `epochs grew by ${grown.join(", ")}`).toBe(1);
      expect(grown[0]).toBeGreaterThanOrEqual(epochs);
      expect(grown[0]).toBeLessThanOrEqual(epochs === 0 ? 0 : epochs + 4);
    }
    return ranks;
  }

  /** The job iterates, and every rank moves bytes over openib, from now on. */
  async expectGoesOn(since: readonly RankSample[]): Promise<void> {
    const iteration = this.#iteration;
    let still = "";
    await until(
      `${this.program} goes on over openib`,
      GOES_ON_MS,
      async () => {
        if (this.hasEnded) throw new Error(`the job has ended. ${this.output()}`);
        if (this.#iteration <= iteration) {
          still = `still at iteration ${iteration}`;
          return undefined;
        }
        const now = await this.ranks();
        const stuck = since.filter((b) => {
          const r = now.find((n) => n.rank === b.rank);
          return r === undefined || bytes(r) <= bytes(b);
        });
        still = `no new bytes over openib by ranks ${stuck.map((r) => r.rank).join(", ")}`;
        return stuck.length === 0 ? true : undefined;
      },
      { pollMs: 200, why: () => `${still}. ${this.output()}` },
    );
  }

  /** Tells the job to end, and holds it to: exit code 0, everything it checked was right. */
  async expectRightEnd(): Promise<JobResult> {
    await this.#lab.guest("vm1", `touch ${this.#stopFile}`);
    await until(`the end of ${this.program}`, END_MS, () => (this.hasEnded ? true : undefined), {
      pollMs: 100,
      why: () => this.output(),
    });
    expect(this.#code, this.output()).toBe(0);
    const result = this.#result;
    if (result === undefined) throw new Error(`no result. ${this.output()}`);
    expect(result).toMatchObject({ workload: this.program, ok: true, ranks: this.#lab.worldSize });
    const { iterations, longestGapMs, seconds } = result;
    say(
      `${this.program} ends right: ${iterations} iterations in ${seconds.toFixed(0)} s, longest gap ${longestGapMs} ms`,
    );
    return result;
  }

  /** The exit code of a job that is expected to end by itself. */
  async exitCode(deadlineMs = END_MS): Promise<number> {
    await until(`the end of ${this.program}`, deadlineMs, () => (this.hasEnded ? true : undefined), {
      pollMs: 100,
      why: () => this.output(),
    });
    return this.#code ?? -1;
  }
}

function bytes({ report }: RankSample): number {
  return report.openib.sentBytes + report.openib.receivedBytes;
}

/** A job that several tests share: started at first use, and anew when an earlier test has lost it. */
export function sharedJob(
  lab: () => E2eLab,
  program: string,
  options: JobOptions = {},
): { get: () => Promise<Job>; end: () => Promise<void> } {
  let job: Job | undefined;
  // When the test that ends it was left out.
  afterAll(async () => {
    if (job?.hasEnded === false) await job.expectRightEnd();
  });
  return {
    get: async () => {
      if (job === undefined || job.hasEnded) job = await Job.start(lab(), program, options);
      return job;
    },
    end: async () => {
      await job?.expectRightEnd();
      job = undefined;
    },
  };
}
