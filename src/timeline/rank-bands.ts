/** What each rank was doing over the cycle: which route carried it, and when it was held. */
import type { CycleReport, RankSpan } from "../controller/report.js";

export type Band = "openib" | "tcp" | "none" | "drain" | "held" | "re-init";

export interface BandSpan {
  band: Band;
  fromMs: number;
  toMs: number;
}

const microseconds = 1 / 1000;

/** The order to park in a VM, or in any VM when this one has none. */
function drainOf(cycle: CycleReport, vm: string) {
  const spans = cycle.phases.filter((span) => span.phase === "drain");
  return spans.find((span) => span.vm === vm) ?? spans[0];
}

/**
 * The spans of one rank from `fromMs` to `toMs`, without holes. The order to park comes at the start
 * of "drain"; the rank's own timings say what it did then. The moved guest's clock stands still in its
 * downtime, so that is added to its hold. Under strategy live only ranks of the moving VM are held, and only so that
 * pre-copy ends: when, is the controller's word. (The phases of the VM end later, when the controller knows.)
 */
export function rankBands(cycle: CycleReport, rank: RankSpan, fromMs: number, toMs: number): BandSpan[] {
  const holds = rank.vm === cycle.vm ? cycle.holds : [];
  return holds.reduce(
    (bands, { heldMs, orderedMs, goneOnMs, releasedMs }) =>
      overlay(bands, { band: "held", fromMs: heldMs ?? orderedMs, toMs: goneOnMs ?? releasedMs ?? toMs }),
    routeBands(cycle, rank, fromMs, toMs),
  );
}

/** Puts a span over others. */
function overlay(bands: readonly BandSpan[], over: BandSpan): BandSpan[] {
  const [first, last] = [bands[0], bands.at(-1)];
  if (first === undefined || last === undefined) return [];
  const put = { ...over, fromMs: Math.max(over.fromMs, first.fromMs), toMs: Math.min(over.toMs, last.toMs) };
  const before = bands.map((b) => ({ ...b, toMs: Math.min(b.toMs, put.fromMs) }));
  const after = bands.map((b) => ({ ...b, fromMs: Math.max(b.fromMs, put.toMs) }));
  return [...before, put, ...after].filter((b) => b.toMs > b.fromMs);
}

function routeBands(cycle: CycleReport, rank: RankSpan, fromMs: number, toMs: number): BandSpan[] {
  const drain = drainOf(cycle, rank.vm);
  const { late, drain: drained, teardown, held, load, connect } = rank.timings;
  const drawn: BandSpan[] = [];
  let at = fromMs;
  const until = (band: Band, end: number) => {
    const stop = Math.min(Math.max(end, at), toMs);
    if (stop > at) drawn.push({ band, fromMs: at, toMs: stop });
    at = stop;
  };
  if (drain === undefined || late + drained + teardown + held === 0) {
    until(rank.before.route, toMs);
    return drawn;
  }
  if (cycle.strategy === "live" && !rank.moved) {
    // Only its routes to the moving ranks changed.
    until(rank.before.route, toMs);
    return drawn;
  }
  if (cycle.strategy === "live") {
    // The rank runs all the time; only its route changes, at its own flip and when openib is back.
    const spans = cycle.phases.filter((span) => span.vm === rank.vm);
    const back = spans.findLast((span) => span.phase === "re-init" || span.phase === "roll-back");
    const backAt = back ?? cycle.phases.findLast((span) => span.phase === "roll-back");
    until(rank.before.route, drain.startMs + late * microseconds);
    until("tcp", backAt === undefined ? toMs : backAt.startMs + backAt.ms);
    until(rank.after.route, toMs);
    return drawn;
  }
  const downtime = rank.vm === cycle.vm ? (cycle.preCopy?.downtimeMs ?? 0) : 0;
  until(rank.before.route, drain.startMs + late * microseconds);
  until("drain", at + (drained + teardown) * microseconds);
  until("held", at + held * microseconds + downtime);
  until("re-init", at + (load + connect) * microseconds);
  until(rank.after.route, toMs);
  return drawn;
}
