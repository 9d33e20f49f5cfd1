/** What the end-to-end tests say while they run. */
import { sayOn } from "../../../src/testbed/progress.js";

export { until } from "../../../src/testbed/progress.js";

export const say = sayOn("e2e");

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
