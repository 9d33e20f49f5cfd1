/** What a job has written into its file in the guest so far, line by line as it arrives. */
import type { ArrivedProgress } from "../demo/job-clock.js";
import { JobRecorder } from "../demo/recorder.js";
import type { JobEnd } from "./world.js";

const mostWords = 200;

export class JobOutput {
  readonly #recorder: JobRecorder;
  readonly #words: string[] = [];
  #startedMs = Infinity;
  #last: ArrivedProgress | undefined;
  #exitCode: number | undefined;

  /** @param now the host's clock, milliseconds since 1970 */
  constructor(now: () => number = Date.now) {
    this.#recorder = new JobRecorder(now);
  }

  /**
   * Takes a line. Lines may come again, from the first on, when the file is read anew (after a restart of the
   * guest it may even be shorter than before).
   */
  line(text: string): void {
    const progress = this.#recorder.line(text);
    if (progress !== null) {
      // The line with the smallest delay tells best when the job's clock began. Later ones of a guest whose clock was set back tell too late.
      this.#startedMs = Math.min(this.#startedMs, progress.arrivedMs - progress.seconds * 1000);
      this.#last = progress;
      return;
    }
    const exit = /^exit (\d{1,3})$/.exec(text);
    if (exit !== null) this.#exitCode = Number(exit[1]);
    else if (this.#words.length < mostWords) this.#words.push(text);
  }

  /** Of the last progress line; -1 before the first. */
  get iteration(): number {
    return this.#last?.iteration ?? -1;
  }

  get hasEnded(): boolean {
    return this.#exitCode !== undefined;
  }

  /** What the job said besides its progress, for a message. */
  get words(): string {
    return this.#words.slice(-20).join(" | ");
  }

  /** How it has ended; undefined while it runs. */
  get end(): JobEnd | undefined {
    if (this.#exitCode === undefined) return undefined;
    const totalMs = this.#last === undefined ? 0 : this.#last.arrivedMs - this.#startedMs;
    return { exitCode: this.#exitCode, result: this.#recorder.result, totalMs, words: this.words };
  }
}
