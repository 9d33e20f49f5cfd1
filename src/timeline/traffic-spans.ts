/**
 * From counters to a band: what moved between each two samples, and over which route. A span is as long as the time
 * between its samples was, so a time without samples stays one span with its mean rate; nothing is put in between.
 */
import type { Bytes, CounterSample, RankTraffic } from "./input.js";

/** Payload that moved between two samples that follow each other. */
export interface TrafficSpan extends Bytes {
  fromMs: number;
  toMs: number;
}

export type Carrier = "openib" | "tcp" | "none";

/** Spans that follow each other with the same carrier. */
export interface CarrierRun extends TrafficSpan {
  carrier: Carrier;
}

/** Two samples closer than this say little of a rate: a single message is a peak. */
const steadyMs = 100;

/** Counters never go back; one that did began anew, and counts from zero. */
function grown(later: number, earlier: number): number {
  return later >= earlier ? later - earlier : later;
}

export function trafficSpans(samples: readonly CounterSample[]): TrafficSpan[] {
  const ordered = [...samples].sort((a, b) => a.ms - b.ms);
  return ordered.flatMap((sample, i) => {
    const last = ordered[i - 1];
    if (last === undefined || sample.ms === last.ms) return [];
    const openib = grown(sample.openib, last.openib);
    return [{ fromMs: last.ms, toMs: sample.ms, openib, tcp: grown(sample.tcp, last.tcp) }];
  });
}

/** The route that carried more; when the rank changes over in a span, both did. */
export function carrierOf({ openib, tcp }: Bytes): Carrier {
  if (openib === 0 && tcp === 0) return "none";
  return tcp > openib ? "tcp" : "openib";
}

export function carrierRuns(spans: readonly TrafficSpan[]): CarrierRun[] {
  const runs: CarrierRun[] = [];
  for (const span of spans) {
    const carrier = carrierOf(span);
    const run = runs[runs.length - 1];
    if (run === undefined || run.carrier !== carrier) {
      runs.push({ ...span, carrier });
      continue;
    }
    run.toMs = span.toMs;
    run.openib += span.openib;
    run.tcp += span.tcp;
  }
  return runs;
}

/** Bytes per second over a span, both routes. */
export function rateOf({ fromMs, toMs, openib, tcp }: TrafficSpan): number {
  return ((openib + tcp) / (toMs - fromMs)) * 1000;
}

/** The highest rate of any rank in a range, of spans long enough to have one; 0 when nothing moved. */
export function peakRate(bands: readonly RankTraffic[], fromMs: number, toMs: number): number {
  const spans = bands
    .flatMap((band) => trafficSpans(band.samples))
    .filter((span) => span.toMs > fromMs && span.fromMs < toMs);
  const steady = spans.filter((span) => span.toMs - span.fromMs >= steadyMs);
  return Math.max(0, ...(steady.length > 0 ? steady : spans).map(rateOf));
}
