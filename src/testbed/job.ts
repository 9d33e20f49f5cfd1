/** A self-verifying MPI job in the guests of a lab, from its start to its verdict. */
import assert from "node:assert/strict";
import { setTimeout as delay } from "node:timers/promises";
import { jobCommand } from "../demo/job-command.js";
import { type JobResult, parseProgress, parseResult } from "../demo/job-log.js";
import type { JobStatus } from "../index.js";
import { labExec, MANAGEMENT_SUBNET } from "../lab/index.js";
import { quote } from "../vmm/qemu/run-on-host.js";
import { Fault } from "./fault.js";
import { until } from "./progress.js";
import type { Testbed } from "./testbed.js";

export type RankSample = JobStatus["ranks"][number];
export type Route = "openib" | "tcp";

const START_MS = 180_000;
const GOES_ON_MS = 60_000;
const END_MS = 120_000;
const LONGEST_S = "7200";
let count = 0;

export interface JobOptions {
  args?: readonly string[];
  /** "NAME=value" for the ranks, by mpirun's -x. */
  env?: readonly string[];
  /** Further MCA parameters, [name, value]. */
  mca?: readonly (readonly [string, string])[];
  /**
   * mpirun runs in a session of its own and writes to a file in its guest, so that the job needs nobody outside and
   * can be set back with its VMs; what it says is then read now and again.
   */
  detached?: boolean;
  /** What its ranks must run over before `start` resolves; "any": do not wait for that. Default openib. */
  route?: Route | "any";
}

/** How epochs have grown since then, by a cycle of that VM. */
export interface Growth {
  since: readonly RankSample[];
  /** Least; up to four more where a handshake of openib stopped half way and the card was opened anew. */
  epochs: number;
  /** Only its ranks must have a new epoch; the others may have kept theirs. Absent: every rank. */
  vm?: string;
}

export class Job {
  readonly program: string;
  readonly #bed: Testbed;
  readonly #stopFile: string;
  readonly #lines: string[] = [];
  /** Of a detached job: where its output is in vm1, and beside it as FILE.code its exit code. */
  readonly #log: string | undefined;
  #iteration = -1;
  #result: JobResult | undefined;
  #code: number | undefined;
  #ended: Promise<number | null> = Promise.resolve(null);

  private constructor(bed: Testbed, program: string, detached: boolean) {
    this.#bed = bed;
    this.program = program;
    const mark = `${process.pid}-${++count}`;
    this.#stopFile = `/tmp/testbed-stop-${mark}`;
    this.#log = detached ? `/tmp/testbed-log-${mark}` : undefined;
  }

  /** Starts a workload over all VMs; resolves when every rank runs over the route and it iterates. */
  static async start(bed: Testbed, program: string, options: JobOptions = {}): Promise<Job> {
    const job = new Job(bed, program, options.detached === true);
    await job.#launch(options);
    const { route = "openib" } = options;
    if (route !== "any") await job.#isUp(route);
    return job;
  }

  async #launch({ args = [], env = [], mca = [] }: JobOptions): Promise<void> {
    const bed = this.#bed;
    const command = jobCommand(
      { vms: bed.vms, ranksPerVm: bed.shape.ranksPerVm, network: MANAGEMENT_SUBNET },
      `/opt/symvirt/build/workloads/${this.program}`,
      ["--seconds", LONGEST_S, "--stop-file", this.#stopFile, ...args],
    );
    const more = [
      ...env.flatMap((e) => ["-x", e]),
      ...mca.flatMap(([name, value]) => ["--mca", name, value]),
    ];
    command.splice(2, 0, ...more);
    if (this.#log !== undefined) {
      const line = `${command.map(quote).join(" ")} </dev/null >${this.#log} 2>&1; echo $? >${this.#log}.code`;
      await bed.guest("vm1", `setsid -f sh -c ${quote(line)} </dev/null >/dev/null 2>&1`);
      return;
    }
    this.#ended = labExec(bed.lab, "vm1", command, { onLine: (line) => this.#line(line) }).then(
      ({ code }) => {
        this.#code = code ?? -1;
        return code;
      },
    );
    this.#ended.catch(() => undefined);
  }

  /** Of a detached job: reads what it has said so far, which may be less than before. */
  async #read(): Promise<void> {
    if (this.#log === undefined) return;
    const text = await this.#bed.guest(
      "vm1",
      `cat ${this.#log}.code 2>/dev/null || echo; tail -n 400 ${this.#log}`,
    );
    const [code = "", ...lines] = text.split("\n");
    this.#lines.length = 0;
    this.#iteration = -1;
    this.#result = undefined;
    this.#code = code === "" ? undefined : Number(code);
    for (const line of lines) this.#line(line);
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

  /** A rank has found wrong data and said so. */
  get saysWrong(): boolean {
    return this.#lines.some((line) => line.startsWith("WRONG "));
  }

  /** What the job said besides its progress. */
  output(): string {
    return `${this.program}: ${this.#code === undefined ? "running" : `exit ${this.#code}`}, iteration ${this.#iteration}\n${this.#lines.slice(-40).join("\n")}`;
  }

  async #isUp(route: Route): Promise<void> {
    const started = performance.now();
    let seen = "";
    await until(
      `${this.program} over ${route}`,
      START_MS,
      async () => {
        await this.#read();
        if (this.hasEnded) throw new Error(`the job ended at its start. ${this.output()}`);
        const ranks = await this.ranks();
        seen = ranks.map((r) => `${r.rank}@${r.vm} ${r.report.state} ${r.report.route}`).join(", ");
        const well = ranks.every((r) => r.report.state === "running" && r.report.route === route);
        return ranks.length === this.#bed.worldSize && well && this.#iteration >= 0 ? true : undefined;
      },
      { pollMs: 400, why: () => `${seen}\n${this.output()}` },
    );
    const seconds = ((performance.now() - started) / 1000).toFixed(1);
    this.#bed.say(`${this.program} runs over ${route} after ${seconds} s`);
  }

  /** Fresh pictures of all ranks of all jobs, by rank. */
  async ranks(): Promise<RankSample[]> {
    return (await this.#bed.status()).jobs.flatMap((j) => j.ranks);
  }

  /** Every rank runs over openib, and its epoch has grown as it should. */
  async expectOpenib(growth?: Growth): Promise<RankSample[]> {
    const ranks = await this.expectRunning();
    for (const { rank, report } of ranks)
      assert.deepEqual({ rank, route: report.route }, { rank, route: "openib" }, this.output());
    if (growth !== undefined) this.#expectGrowth(ranks, growth);
    return ranks;
  }

  /** Every rank is there and runs, over whatever. */
  async expectRunning(): Promise<RankSample[]> {
    const { jobs, vms } = await this.#bed.status();
    const ranks = jobs.flatMap((j) => j.ranks);
    const trouble = vms.flatMap((v) => (v.trouble === "" ? [] : [`${v.vm}: ${v.trouble}`]));
    assert.deepEqual(
      ranks.map((r) => r.rank),
      Array.from({ length: this.#bed.worldSize }, (_, i) => i),
      `the ranks reported. ${trouble.join("; ")}. ${this.output()}`,
    );
    for (const { rank, report } of ranks)
      assert.deepEqual(
        { rank, state: report.state, error: report.error },
        { rank, state: "running", error: 0 },
        `${report.detail}. ${this.output()}`,
      );
    return ranks;
  }

  #expectGrowth(ranks: readonly RankSample[], { since, epochs, vm }: Growth): void {
    const grown = ranks.map(({ rank, vm: at, report }) => {
      const before = since.find((b) => b.rank === rank)?.report.epoch ?? 0;
      return { at, by: report.epoch - before };
    });
    const words = `epochs grew by ${grown.map((g) => g.by).join(", ")}`;
    const most = epochs === 0 ? 0 : epochs + 4;
    for (const { at, by } of grown) {
      if (by === 0 && vm !== undefined && at !== vm) continue;
      assert.ok(by >= epochs && by <= most, words);
    }
    assert.ok(new Set(grown.map((g) => g.by).filter((by) => by !== 0)).size <= 1, words);
  }

  /** The job iterates, and every rank moves bytes over the route, from now on. */
  async expectGoesOn(since: readonly RankSample[], route: Route = "openib"): Promise<void> {
    await this.#read();
    const iteration = this.#iteration;
    const end = performance.now() + GOES_ON_MS;
    for (;;) {
      await this.#read();
      if (this.hasEnded)
        throw new Fault(this.saysWrong ? "wrong" : "failed", `the job has ended. ${this.output()}`);
      const now = await this.ranks();
      const stuck = since.filter((b) => {
        const r = now.find((n) => n.rank === b.rank);
        return r === undefined || bytes(r, route) <= bytes(b, route);
      });
      if (this.#iteration > iteration && stuck.length === 0) return;
      if (performance.now() > end) {
        const still =
          this.#iteration > iteration
            ? `no new bytes over ${route} by ranks ${stuck.map((r) => r.rank).join(", ")}`
            : `still at iteration ${iteration}`;
        throw new Fault(
          "lost",
          `${this.program} does not go on within ${GOES_ON_MS / 1000} s: ${still}. ${this.output()}`,
        );
      }
      await delay(200);
    }
  }

  /** Tells the job to end, and holds it to: exit code 0, everything it checked was right. */
  async expectRightEnd(): Promise<JobResult> {
    await this.#bed.guest("vm1", `touch ${this.#stopFile}`);
    const code = await this.exitCode();
    if (code !== 0) throw new Fault(this.saysWrong ? "wrong" : "failed", this.output());
    const result = this.#result;
    if (result === undefined) throw new Fault("wrong", `no result. ${this.output()}`);
    const { workload, ok, ranks } = result;
    if (workload !== this.program || !ok || ranks !== this.#bed.worldSize)
      throw new Fault("wrong", `the verdict is ${JSON.stringify(result)}`);
    const { iterations, longestGapMs, seconds } = result;
    this.#bed.say(
      `${this.program} ends right: ${iterations} iterations in ${seconds.toFixed(0)} s, longest gap ${longestGapMs} ms`,
    );
    return result;
  }

  /** The exit code of a job that is expected to end by itself. */
  async exitCode(deadlineMs = END_MS): Promise<number> {
    if (this.#log !== undefined) {
      return await until(`the end of ${this.program}`, deadlineMs, async () => {
        await this.#read();
        return this.#code;
      }).catch(() => {
        throw new Fault(
          "lost",
          `${this.program} does not end within ${deadlineMs / 1000} s. ${this.output()}`,
        );
      });
    }
    const ended = await Promise.race([
      this.#ended.then(() => true),
      delay(deadlineMs, false, { ref: false }),
    ]);
    if (!ended)
      throw new Fault("lost", `${this.program} does not end within ${deadlineMs / 1000} s. ${this.output()}`);
    return this.#code ?? -1;
  }
}

function bytes({ report }: RankSample, route: Route): number {
  return report[route].sentBytes + report[route].receivedBytes;
}
