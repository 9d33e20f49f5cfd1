/** The job's speed over time, from its progress reports. */
import type { IterationSample } from "./input.js";

export interface RateSpan {
  fromMs: number;
  toMs: number;
  /** Iterations per second; 0 while the job stood still. */
  perSecond: number;
}

/** A shorter pause is part of the mean. */
const visibleGapMs = 200;
/** So is one that is not longer than this many usual iterations. */
const usualIterations = 5;

/** From how long on a pause is drawn as one, in milliseconds: by the usual (median) time of an iteration. */
function pauseThreshold(samples: readonly IterationSample[]): number {
  const times = samples
    .flatMap((sample, i) => {
      const last = samples[i - 1];
      const iterations = last === undefined ? 0 : sample.iteration - last.iteration;
      return last === undefined || iterations < 1 ? [] : [(sample.atMs - last.atMs) / iterations];
    })
    .sort((a, b) => a - b);
  return Math.max(visibleGapMs, usualIterations * (times[Math.floor(times.length / 2)] ?? 0));
}

/** Mean speed between each two samples; a long pause at the end of an interval is split off with speed 0. */
export function rateSpans(samples: readonly IterationSample[]): RateSpan[] {
  const threshold = pauseThreshold(samples);
  const spans: RateSpan[] = [];
  samples.forEach((sample, i) => {
    const last = samples[i - 1];
    if (last === undefined || sample.atMs <= last.atMs) return;
    const ms = sample.atMs - last.atMs;
    const iterations = Math.max(0, sample.iteration - last.iteration);
    const gap = Math.min(sample.gapMs, ms);
    const rest = ms - gap;
    if (gap < threshold || gap < ms / 4) {
      spans.push({ fromMs: last.atMs, toMs: sample.atMs, perSecond: (iterations / ms) * 1000 });
      return;
    }
    const middle = sample.atMs - gap;
    if (rest >= 1)
      spans.push({ fromMs: last.atMs, toMs: middle, perSecond: (Math.max(0, iterations - 1) / rest) * 1000 });
    spans.push({ fromMs: middle, toMs: sample.atMs, perSecond: 0 });
  });
  return spans;
}

/** The longest pause among the samples, null when there is none to speak of. */
export function longestPause(samples: readonly IterationSample[]): { fromMs: number; toMs: number } | null {
  const threshold = pauseThreshold(samples);
  const longest = samples.reduce<IterationSample | null>(
    (most, s) => (s.gapMs >= threshold && s.gapMs > (most?.gapMs ?? 0) ? s : most),
    null,
  );
  return longest === null ? null : { fromMs: longest.atMs - longest.gapMs, toMs: longest.atMs };
}

export interface Gap {
  fromMs: number;
  toMs: number;
}

/**
 * The longest time between two iterations that ended in a range. Between two reports of iterations that follow each
 * other it is the time between the reports, else what the job said of the pauses in between (it ended at the report).
 */
export function longestGap(samples: readonly IterationSample[], fromMs: number, toMs: number): Gap | null {
  let longest: Gap | null = null;
  samples.forEach((sample, i) => {
    const last = samples[i - 1];
    if (last === undefined || sample.atMs < fromMs || sample.atMs > toMs) return;
    const between = sample.atMs - last.atMs;
    const ms = sample.iteration - last.iteration === 1 ? between : Math.min(sample.gapMs, between);
    if (ms > 0 && (longest === null || ms > longest.toMs - longest.fromMs))
      longest = { fromMs: sample.atMs - ms, toMs: sample.atMs };
  });
  return longest;
}
