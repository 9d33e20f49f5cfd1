/** What the end-to-end tests say while they run, and waiting for what must become true. */
import { setTimeout as delay } from "node:timers/promises";

const began = performance.now();

/** One line with the seconds since the file's start, past vitest's capture of the console. */
export function say(line: string): void {
  process.stderr.write(`[e2e ${((performance.now() - began) / 1000).toFixed(1).padStart(7)} s] ${line}\n`);
}

/** Runs a step and says how long it took. */
export async function timed<T>(what: string, step: () => Promise<T>): Promise<T> {
  const started = performance.now();
  const seconds = () => `${((performance.now() - started) / 1000).toFixed(1)} s`;
  try {
    const value = await step();
    say(`${what}: ${seconds()}`);
    return value;
  } catch (error) {
    say(`${what}: failed after ${seconds()}: ${String(error)}`);
    throw error;
  }
}

/**
 * Looks until `look` gives something, and returns it. `why` is asked for the error when the deadline has
 * passed. The deadlines are generous: they end a failed test, they pace none.
 */
export async function until<T>(
  what: string,
  deadlineMs: number,
  look: () => T | undefined | Promise<T | undefined>,
  options: { pollMs?: number; why?: () => string } = {},
): Promise<T> {
  const end = performance.now() + deadlineMs;
  for (;;) {
    const found = await look();
    if (found !== undefined) return found;
    if (performance.now() > end)
      throw new Error(`${what}: not within ${deadlineMs / 1000} s. ${options.why?.() ?? ""}`);
    await delay(options.pollMs ?? 250);
  }
}
