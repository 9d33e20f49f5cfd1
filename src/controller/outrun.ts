/**
 * Whether a guest changes its memory as fast as it is sent, so that pre-copy would never end. Each pass of pre-copy
 * sends what the pass before left changed; with a ratio of changed to sent near 1 a pass leaves as much as it took.
 */
import type { MigrationProgress } from "../vmm/driver.js";

/**
 * Dirty rate over send rate. Below 1, since the dirty rate cannot show more: QEMU counts a page once a pass, however
 * often it is written, so a guest that writes all of its working set all the time shows just what is sent, less what
 * the pass costs besides pages. At nine tenths a pass still takes off a tenth, which is the slowest that is waited for.
 * (QEMU's own auto-converge acts from one half on: `throttle-trigger-threshold`.)
 */
export const OUTRUN_RATIO = 0.9;
/**
 * How long it must be so without a break. QEMU measures the dirty rate once a pass, so this is at least two passes of up
 * to half of it, or one that is longer: by then as much was sent as the guest had time to change.
 */
export const OUTRUN_MS = 5000;

export class OutrunWatch {
  #sinceMs: number | undefined;

  /** Takes one look at the migration, at a time in milliseconds; true once the guest has outrun it long enough. */
  sample({ dirtyBytesPerSecond, sentBytesPerSecond }: MigrationProgress, nowMs: number): boolean {
    // No pass is complete, or nothing goes out at all: neither says anything about the guest.
    const outruns = sentBytesPerSecond > 0 && dirtyBytesPerSecond >= OUTRUN_RATIO * sentBytesPerSecond;
    if (!outruns) this.#sinceMs = undefined;
    else this.#sinceMs ??= nowMs;
    return this.#sinceMs !== undefined && nowMs - this.#sinceMs >= OUTRUN_MS;
  }
}
