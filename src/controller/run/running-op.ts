/** The work of a phase: begun, told to stop, and given up when it does not. */
import { SymvirtError } from "../../errors.js";
import { sentence } from "../errors-in-words.js";

/** `unsettled`: it was given up and may still go on, or says itself that nobody knows what it did. */
export type OpEnd = { type: "ok" } | { type: "fail"; cause: string; unsettled?: boolean };

export class RunningOp {
  readonly #settleMs: number;
  readonly #ended: (end: OpEnd) => void;
  #op: AbortController | undefined;
  #settle: NodeJS.Timeout | undefined;

  /** `settleMs`: how long it may take to stop after it was told to. */
  constructor(settleMs: number, ended: (end: OpEnd) => void) {
    this.#settleMs = settleMs;
    this.#ended = ended;
  }

  begin(work: (signal: AbortSignal) => Promise<void>): void {
    const controller = new AbortController();
    this.#op = controller;
    const end = (event: OpEnd) => {
      // Given up on: an op that did not stop in time must not speak for a later phase.
      if (this.#op !== controller) return;
      this.close();
      this.#ended(event);
    };
    work(controller.signal).then(
      () => end({ type: "ok" }),
      (error: unknown) => {
        const unsettled = error instanceof SymvirtError && error.unsettled;
        end({ type: "fail", cause: sentence(error), ...(unsettled ? { unsettled } : {}) });
      },
    );
  }

  /** Tells it to stop; its end follows in any case. Nothing happens if none is on. */
  cancel(cause: string, phase: string): void {
    const op = this.#op;
    if (op === undefined) return;
    op.abort(new SymvirtError("interrupted", cause));
    this.#settle = setTimeout(() => {
      if (this.#op !== op) return;
      this.close();
      const seconds = this.#settleMs / 1000;
      const trouble = `${cause}, but the work of phase ${phase} did not stop within ${seconds} s`;
      this.#ended({ type: "fail", cause: trouble, unsettled: true });
    }, this.#settleMs);
  }

  /** Nobody waits for it any more: what is still on is told to stop. */
  abandon(): void {
    this.#op?.abort(new SymvirtError("interrupted", "the cycle has ended"));
    this.close();
  }

  close(): void {
    this.#op = undefined;
    clearTimeout(this.#settle);
  }
}
