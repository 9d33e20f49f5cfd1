/** Follows a running job by its output: progress on the host's clock, the result, and what else it said. */
import { type ArrivedProgress, onHostClock, type TimedProgress } from "./job-clock.js";
import { type JobResult, parseProgress, parseResult } from "./job-log.js";

/** More progress lines than any demo makes; a job that prints without end must not fill the memory. */
const maxProgress = 100_000;

export class JobRecorder {
  readonly #lines: ArrivedProgress[] = [];
  readonly #now: () => number;
  #result: JobResult | null = null;

  constructor(now: () => number = Date.now) {
    this.#now = now;
  }

  /** Takes one line of the job's output; returns the progress in it, if it is a progress line. */
  line(text: string): ArrivedProgress | null {
    const progress = parseProgress(text);
    if (progress === null) {
      this.#result = parseResult(text.trim()) ?? this.#result;
      return null;
    }
    const arrived = { ...progress, arrivedMs: this.#now() };
    if (this.#lines.length < maxProgress) this.#lines.push(arrived);
    return arrived;
  }

  get result(): JobResult | null {
    return this.#result;
  }

  get last(): ArrivedProgress | undefined {
    return this.#lines[this.#lines.length - 1];
  }

  /** All progress on the host's clock; see onHostClock. */
  timed(stoodStillMs: number): TimedProgress[] {
    return onHostClock(this.#lines, stoodStillMs);
  }
}
