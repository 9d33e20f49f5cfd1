/** The pause a cycle makes in a job, from the job's own progress lines. */
import { SymvirtError } from "../errors.js";

/** One progress line: iterations so far, longest gap since the line before, host clock at arrival. */
export interface GapSample {
  iteration: number;
  /** Seconds since the job's start, by the job's clock. */
  seconds: number;
  gapMs: number;
  arrivedMs: number;
}

/** Mean time of an iteration over the lines, in milliseconds. */
export function iterationMs(samples: readonly GapSample[]): number {
  const [first] = samples;
  const last = samples.at(-1);
  const iterations = (last?.iteration ?? 0) - (first?.iteration ?? 0);
  if (first === undefined || last === undefined || iterations < 1)
    throw new SymvirtError("internal", "The job did not iterate while it was left alone");
  return ((last.seconds - first.seconds) * 1000) / iterations;
}

/**
 * Longest gap in the lines that can tell of the time from `startMs` to `endMs`: those that arrived in
 * it, and the first two after it (a line tells of the half second before it, and the first may have
 * been on its way when the cycle ended). Undefined while that second line has not come.
 */
export function longestGap(
  samples: readonly GapSample[],
  startMs: number,
  endMs: number,
): number | undefined {
  const inside = samples.filter((s) => s.arrivedMs >= startMs && s.arrivedMs <= endMs);
  const after = samples.filter((s) => s.arrivedMs > endMs).slice(0, 2);
  if (after.length < 2) return undefined;
  return Math.max(...[...inside, ...after].map((s) => s.gapMs));
}

/** Lines on each side of a cycle that tell how the two clocks stand to each other. */
const CLOCK_LINES = 4;

/**
 * How much later the job's lines come after the cycle than before it by the job's own clock: the time in which its
 * VM, and so its clock, stood still. A line may come late but not early, so the least difference of each side counts.
 * Undefined while too few have come after it.
 */
export function clockStoodStillMs(
  samples: readonly GapSample[],
  startMs: number,
  endMs: number,
): number | undefined {
  const lead = (side: readonly GapSample[]) => Math.min(...side.map((s) => s.arrivedMs - s.seconds * 1000));
  const before = samples.filter((s) => s.arrivedMs < startMs).slice(-CLOCK_LINES);
  const after = samples.filter((s) => s.arrivedMs > endMs).slice(0, CLOCK_LINES);
  if (before.length === 0)
    throw new SymvirtError("internal", "The job had told nothing when its cycle began");
  return after.length < CLOCK_LINES ? undefined : Math.max(0, lead(after) - lead(before));
}
