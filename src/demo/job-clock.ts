/**
 * Puts progress lines on the host's clock. A line is stamped by the guest when it is printed and by
 * the host when it arrives; the arrival is late by the way through ssh, and a migrated guest's clock
 * stands still during its downtime. So the guest's stamps are shifted by the smallest delay seen,
 * once for the lines up to the downtime and once for those after it.
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

/** The smallest delay seen: what is added to a guest's stamp to have the host's time. Infinite without a line. */
function offsetOf(lines: readonly ArrivedProgress[]): number {
  return lines.reduce((least, line) => Math.min(least, line.arrivedMs - line.wallMs), Infinity);
}

/**
 * Puts lines on the host's clock; `stoodStillMs` is the host's time at which the guest's clock stood still. A line
 * printed before that may arrive after it, so its own stamp decides where it belongs.
 */
export function onHostClock(lines: readonly ArrivedProgress[], stoodStillMs: number): TimedProgress[] {
  const early = offsetOf(lines.filter((line) => line.arrivedMs <= stoodStillMs));
  const isAfter = (line: ArrivedProgress) => line.wallMs + early > stoodStillMs;
  const late = offsetOf(lines.filter(isAfter));
  return lines
    .map(({ arrivedMs, ...line }) => {
      const offset = isAfter({ arrivedMs, ...line }) ? late : early;
      return { ...line, atMs: line.wallMs + offset };
    })
    .sort((a, b) => a.iteration - b.iteration);
}

/** A span of time on the host's clock, milliseconds since 1970. */
export interface Period {
  startMs: number;
  endMs: number;
}

export interface IterationCount {
  before: number;
  during: number;
  after: number;
  /** Of those in the cycle: while no rank could use the card. */
  away: number;
}

/** How many iterations ended before, in and after a cycle, and while the card was away, as far as the progress lines tell. */
export function countIterations(
  lines: readonly TimedProgress[],
  cycle: Period,
  away: Period | null,
  total: number,
): IterationCount {
  const lastBy = (time: number) =>
    lines.reduce((most, line) => (line.atMs <= time ? Math.max(most, line.iteration) : most), 0);
  const before = lastBy(cycle.startMs);
  const during = lastBy(cycle.endMs) - before;
  return {
    ...{ before, during, after: Math.max(0, total - before - during) },
    away: away === null ? 0 : lastBy(away.endMs) - lastBy(away.startMs),
  };
}
