/** Bytes each rank has moved over openib and tcp before, during and after a cycle, from samples of its counters. */
import type { RankReport, Traffic } from "../protocol/messages.js";
import type { Bytes, RankTraffic, RouteBytes } from "../timeline/input.js";

/** One rank's counters at one moment. */
export interface RankSample {
  rank: number;
  vm: string;
  state: RankReport["state"];
  route: RankReport["route"];
  epoch: number;
  /** Sent plus received, since the job's start. */
  bytes: Bytes;
}

/** Payload both ways. */
export function totalBytes(traffic: Traffic): number {
  return traffic.sentBytes + traffic.receivedBytes;
}

/** Reduces a rank's report to what the demo follows. */
export function sampleOf(
  vm: string,
  report: Pick<RankReport, "rank" | "state" | "route" | "epoch" | "openib" | "tcp">,
): RankSample {
  return {
    rank: report.rank,
    vm,
    state: report.state,
    route: report.route,
    epoch: report.epoch,
    bytes: { openib: totalBytes(report.openib), tcp: totalBytes(report.tcp) },
  };
}

/** later - earlier; counters never go back, so a negative difference (a restarted counter) counts from zero. */
function difference(later: Bytes, earlier: Bytes): Bytes {
  const one = (key: keyof Bytes) => (later[key] >= earlier[key] ? later[key] - earlier[key] : later[key]);
  return { openib: one("openib"), tcp: one("tcp") };
}

const none: Bytes = { openib: 0, tcp: 0 };

/** Bytes per rank between four moments: the job's start (zero), just before the cycle, just after it, and the last look. */
export function routeBytes(
  before: readonly RankSample[],
  after: readonly RankSample[],
  last: readonly RankSample[],
): RouteBytes[] {
  const of = (samples: readonly RankSample[], rank: number) => samples.find((s) => s.rank === rank)?.bytes;
  return [...before]
    .sort((a, b) => a.rank - b.rank)
    .map(({ rank, vm, bytes }) => {
      const then = of(after, rank) ?? bytes;
      return {
        rank,
        vm,
        before: difference(bytes, none),
        during: difference(then, bytes),
        after: difference(of(last, rank) ?? then, then),
      };
    });
}

/** What a rank had moved by a moment. */
export interface CounterReading {
  rank: number;
  vm: string;
  /** Host clock, milliseconds since 1970. */
  atMs: number;
  bytes: Bytes;
}

/** The readings of each rank in the order of time, counted from the cycle's begin. */
export function bandsOf(readings: readonly CounterReading[], cycleStartMs: number): RankTraffic[] {
  const bands = new Map<number, { rank: number; vm: string; readings: CounterReading[] }>();
  for (const reading of readings) {
    const band = bands.get(reading.rank) ?? { rank: reading.rank, vm: reading.vm, readings: [] };
    band.readings.push(reading);
    bands.set(reading.rank, band);
  }
  return [...bands.values()]
    .sort((a, b) => a.rank - b.rank)
    .map(({ rank, vm, readings: own }) => ({
      ...{ rank, vm },
      samples: own
        .sort((a, b) => a.atMs - b.atMs)
        .map(({ atMs, bytes }) => ({ ms: Math.round(atMs - cycleStartMs), ...bytes })),
    }));
}
