/** The condition a phase waits for, which the guests' reports must show. */
import type { Verdict } from "../conditions.js";
import type { Condition } from "../cycle.js";

type Judge = (condition: Condition) => Verdict;

export class Awaited {
  readonly #ask: (signal: AbortSignal) => Promise<unknown>;
  readonly #answered: () => void;
  #condition: Condition | undefined;
  #fresh = true;
  #asking: AbortController | undefined;

  /** `ask` resolves when every guest concerned has reported anew; then `answered` is called. */
  constructor(ask: (signal: AbortSignal) => Promise<unknown>, answered: () => void) {
    this.#ask = ask;
    this.#answered = answered;
  }

  get condition(): Condition | undefined {
    return this.#condition;
  }

  watch(condition: Condition): void {
    this.#condition = condition;
    // What a guest said of its card before the attach or the tear-down proves nothing: ask anew.
    this.#fresh = condition !== "link-up" && condition !== "released";
    if (!this.#fresh) this.#refresh();
  }

  /** The phase is left. */
  forget(): void {
    this.#condition = undefined;
    this.#asking?.abort();
  }

  /** Who is waited for. */
  late(judge: Judge): string[] {
    if (this.#condition === undefined) return [];
    const verdict = judge(this.#condition);
    return verdict.met === false ? verdict.late : [];
  }

  /** How the wait has ended, once; undefined while it goes on. */
  settled(judge: Judge): { type: "ok" } | { type: "step-failed"; cause: string } | undefined {
    if (this.#condition === undefined) return undefined;
    const verdict = judge(this.#condition);
    if (verdict.met === false || (verdict.met === true && !this.#fresh)) return undefined;
    this.#condition = undefined;
    return verdict.met === true ? { type: "ok" } : { type: "step-failed", cause: verdict.why };
  }

  #refresh(): void {
    const asking = new AbortController();
    this.#asking = asking;
    this.#ask(asking.signal).then(
      () => {
        if (this.#asking !== asking) return;
        this.#fresh = true;
        this.#answered();
      },
      // Given up with the phase, or a link is quarantined: the phase's deadline tells.
      () => undefined,
    );
  }
}
