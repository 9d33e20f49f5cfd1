/**
 * Puts progress lines on the host's clock. A line is stamped by the guest when it is printed and by
 * the host when it arrives; the arrival is late by the way through ssh, and a migrated guest's clock
 * stands still during its downtime. So the guest's stamps are shifted by the smallest delay seen,
 * once for the lines up to the end of the cycle and once for those after it.
 */
import type { Progress } from "./job-log.js";

export interface ArrivedProgress extends Progress {
  /** Host clock at arrival, milliseconds since 1970. */
  arrivedMs: number;
}

export interface TimedProgress extends Progress {
  /** Host clock when it was printed, milliseconds since 1970. */
  atMs: number;
}

/** Shifts the lines of one segment by the smallest delay seen in it. */
function shift(segment: readonly ArrivedProgress[]): TimedProgress[] {
  const offset = segment.reduce((least, line) => Math.min(least, line.arrivedMs - line.wallMs), Infinity);
  return segment.map(({ arrivedMs: _, ...line }) => ({ ...line, atMs: line.wallMs + offset }));
}

/** Puts lines on the host's clock; `cycleEndMs` is the host's time at which the guest's clock may have changed. */
export function onHostClock(lines: readonly ArrivedProgress[], cycleEndMs: number): TimedProgress[] {
  const before = shift(lines.filter((line) => line.arrivedMs <= cycleEndMs));
  const after = shift(lines.filter((line) => line.arrivedMs > cycleEndMs));
  return [...before, ...after].sort((a, b) => a.iteration - b.iteration);
}

export interface IterationCount {
  before: number;
  during: number;
  after: number;
}

/** How many iterations ended before, in and after a cycle, as far as the progress lines tell. */
export function countIterations(
  lines: readonly TimedProgress[],
  cycle: { startMs: number; endMs: number },
  total: number,
): IterationCount {
  const lastBy = (time: number) =>
    lines.reduce((most, line) => (line.atMs <= time ? Math.max(most, line.iteration) : most), 0);
  const before = lastBy(cycle.startMs);
  const during = lastBy(cycle.endMs) - before;
  return { before, during, after: Math.max(0, total - before - during) };
}
