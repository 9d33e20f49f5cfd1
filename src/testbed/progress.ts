/** What a run in a lab says meanwhile, and waiting for what must become true. */
import { setTimeout as delay } from "node:timers/promises";

export type Say = (line: string) => void;

const began = performance.now();

/** One line on stderr with the seconds since the process's start, past a test runner's capture of the console. */
export function sayOn(name: string): Say {
  return (line) =>
    void process.stderr.write(
      `[${name} ${((performance.now() - began) / 1000).toFixed(1).padStart(7)} s] ${line}\n`,
    );
}

/**
 * Looks until `look` gives something, and returns it. `why` is asked for the error when the deadline has
 * passed. The deadlines are generous: they end a failed run, they pace none.
 */
export async function until<T>(
  what: string,
  deadlineMs: number,
  look: () => T | undefined | Promise<T | undefined>,
  options: { pollMs?: number; why?: () => string; signal?: AbortSignal } = {},
): Promise<T> {
  const end = performance.now() + deadlineMs;
  for (;;) {
    const found = await look();
    if (found !== undefined) return found;
    if (performance.now() > end)
      throw new Error(`${what}: not within ${deadlineMs / 1000} s. ${options.why?.() ?? ""}`);
    await delay(
      options.pollMs ?? 250,
      undefined,
      options.signal === undefined ? {} : { signal: options.signal },
    );
  }
}
