/**
 * A job in the guests that writes into a file of its first guest, and is followed by reading that file: so it lives on
 * when the guest is started anew from a checkpoint, which a connection to it does not.
 */
import { setTimeout as delay } from "node:timers/promises";
import { jobCommand } from "../demo/job-command.js";
import { labExec, MANAGEMENT_SUBNET } from "../lab/index.js";
import { Fault } from "../testbed/fault.js";
import { until } from "../testbed/progress.js";
import type { Testbed } from "../testbed/testbed.js";
import { JobOutput } from "./job-output.js";
import type { EvalJob, JobEnd } from "./world.js";

const FIRST = "vm1";
const START_MS = 180_000;
/** A job that iterates says so twice a second; an iteration of a large size takes longer. */
const STILL_MS = 180_000;
const POLL_MS = 100;
let count = 0;

/**
 * $0: the file, $@: the job. In a session of its own, so that the end of the connection does not end it; the last line of
 * the file is how it ended. Then the same connection follows the file: making another one takes an emulated guest
 * half a minute while ranks poll on its only processor.
 */
const startScript = `
rm -f "$0" "$0.pid"
: >"$0"
setsid sh -c 'echo $$ >"$0.new"; mv "$0.new" "$0.pid"; "$@" >"$0" 2>&1; echo "exit $?" >>"$0"' "$0" "$@" </dev/null >/dev/null 2>&1 &
until [ -e "$0.pid" ]; do sleep 0.1; done`;
const followScript = `exec tail -n +1 --pid="$(cat "$0.pid")" -f "$0"`;

export class GuestJob implements EvalJob {
  readonly #bed: Testbed;
  readonly #signal: AbortSignal;
  readonly #file = `/tmp/testbed-eval-${process.pid}-${++count}`;
  readonly #output = new JobOutput();
  #stop = new AbortController();
  /** What ended the reading of the file before the job was over. */
  #lost: unknown;

  private constructor(bed: Testbed, signal: AbortSignal) {
    this.#bed = bed;
    this.#signal = signal;
  }

  /** Starts a workload over all VMs; resolves when every rank runs over openib. */
  static async start(
    bed: Testbed,
    program: string,
    args: readonly string[],
    signal: AbortSignal,
  ): Promise<GuestJob> {
    const job = new GuestJob(bed, signal);
    const command = jobCommand(
      { vms: bed.vms, ranksPerVm: bed.shape.ranksPerVm, network: MANAGEMENT_SUBNET },
      `/opt/symvirt/build/workloads/${program}`,
      args,
    );
    job.#follow(["sh", "-c", `${startScript}\n${followScript}`, job.#file, ...command]);
    await job.#isUp(program);
    return job;
  }

  /** Reads the file anew, from its begin: for a guest that was started from a checkpoint, whose connections are gone. */
  followAnew(): void {
    this.#follow(["sh", "-c", followScript, this.#file]);
  }

  #follow(argv: readonly string[]): void {
    this.#stop.abort();
    this.#stop = new AbortController();
    this.#lost = undefined;
    const { signal } = this.#stop;
    const options = {
      signal: AbortSignal.any([this.#signal, signal]),
      onLine: (line: string) => {
        if (!signal.aborted) this.#output.line(line);
      },
    };
    labExec(this.#bed.lab, FIRST, argv, options).then(
      ({ code, stderr }) => {
        if (!signal.aborted && !this.#output.hasEnded)
          this.#lost = new Error(`it ended (${code}): ${stderr.trim()}`);
      },
      (error: unknown) => {
        if (!signal.aborted) this.#lost = error;
      },
    );
  }

  async #isUp(program: string): Promise<void> {
    let seen = "";
    await until(
      `${program} over openib`,
      START_MS,
      async () => {
        this.#mustBeHeard();
        if (this.hasEnded) throw new Fault("failed", `the job ended at its start: ${this.#output.words}`);
        const ranks = (await this.#bed.status()).jobs.flatMap((j) => j.ranks);
        seen = ranks.map((r) => `${r.rank}@${r.vm} ${r.report.state} ${r.report.route}`).join(", ");
        const well = ranks.every((r) => r.report.state === "running" && r.report.route === "openib");
        return ranks.length === this.#bed.worldSize && well && this.#output.iteration >= 0 ? true : undefined;
      },
      // Not more often: every look costs the emulated guests time.
      { pollMs: 1000, why: () => `${seen} ${this.#output.words}`, signal: this.#signal },
    );
  }

  get hasEnded(): boolean {
    return this.#output.hasEnded;
  }

  async reach(iteration: number): Promise<void> {
    await this.#until(() => this.#output.iteration >= iteration);
    if (this.hasEnded)
      throw new Fault(
        "failed",
        `the job ended before it was disturbed: give it more --seconds. ${this.#output.words}`,
      );
  }

  async end(): Promise<JobEnd> {
    await this.#until(() => false);
    this.#stop.abort();
    const { end } = this.#output;
    if (end === undefined) throw new Fault("failed", "the job has not ended");
    if (this.#output.words.includes("WRONG ")) throw new Fault("wrong", this.#output.words);
    return end;
  }

  #mustBeHeard(): void {
    if (this.#lost !== undefined)
      throw new Fault("failed", `the job's output cannot be read: ${String(this.#lost)}`, {
        cause: this.#lost,
      });
  }

  /** Resolves when that is so or the job has ended. */
  async #until(isSo: () => boolean): Promise<void> {
    let last = this.#output.iteration;
    let since = performance.now();
    while (!this.hasEnded && !isSo()) {
      this.#mustBeHeard();
      if (this.#output.iteration !== last) {
        last = this.#output.iteration;
        since = performance.now();
      } else if (performance.now() - since > STILL_MS)
        throw new Fault(
          "lost",
          `the job stands still at iteration ${last} for ${STILL_MS / 1000} s. ${this.#output.words}`,
        );
      await delay(POLL_MS, undefined, { signal: this.#signal });
    }
  }
}
