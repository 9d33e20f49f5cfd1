/** The deadline of a phase. Its cause names it, the phase it passed in, and who was late. */
import type { DeadlineName } from "../cycle.js";

/** So many are named. */
const NAMED = 6;

export class PhaseDeadline {
  readonly #ms: Readonly<Record<DeadlineName, number>>;
  readonly #now: () => { phase: string; late: readonly string[] };
  readonly #passed: (cause: string) => void;
  #timer: NodeJS.Timeout | undefined;

  constructor(
    ms: Readonly<Record<DeadlineName, number>>,
    now: () => { phase: string; late: readonly string[] },
    passed: (cause: string) => void,
  ) {
    this.#ms = ms;
    this.#now = now;
    this.#passed = passed;
  }

  /** In place of the one before. It goes on through phases that have none of their own. */
  arm(name: DeadlineName): void {
    this.clear();
    const ms = this.#ms[name];
    this.#timer = setTimeout(() => {
      const { phase, late } = this.#now();
      const who =
        late.length === 0 ? "" : `: ${late.slice(0, NAMED).join("; ")}${late.length > NAMED ? "; …" : ""}`;
      this.#passed(`the deadline "${name}" (${ms / 1000} s) passed in phase ${phase}${who}`);
    }, ms);
  }

  clear(): void {
    clearTimeout(this.#timer);
  }
}
