/** What must hold for the demo to have shown what it claims. */
import type { CycleReport } from "../controller/report.js";
import type { Strategy } from "../controller/strategy.js";
import type { RouteBytes } from "../timeline/input.js";
import { formatMs } from "../timeline/scale.js";
import type { IterationCount } from "./job-clock.js";
import type { JobResult } from "./job-log.js";
import type { RankSample } from "./route-bytes.js";

export interface Check {
  what: string;
  ok: boolean;
  /** The facts, for a reader who wants to know why. */
  detail: string;
}

export interface Evidence {
  cycle: CycleReport;
  asked: Strategy;
  ranks: number;
  before: readonly RankSample[];
  after: readonly RankSample[];
  routes: readonly RouteBytes[];
  exitCode: number;
  /** Of symvirt's own workloads; null for a program of the user's. */
  own: { result: JobResult | null; iterations: IterationCount } | null;
}

const onOpenib = (samples: readonly RankSample[], ranks: number): boolean =>
  samples.length === ranks && samples.every((s) => s.route === "openib");

const routesOf = (samples: readonly RankSample[]): string =>
  samples.map((s) => `rank ${s.rank}: ${s.route}`).join(", ") || "no rank";

/** Those that left the card came back in a new epoch; of a live cycle the others never left it. */
function epochsGrew({ cycle, before, after, ranks }: Evidence): Check {
  const stayed = new Set(cycle.ranks.filter((r) => !r.moved).map((r) => r.rank));
  const pairs = before.map((b) => ({
    rank: b.rank,
    from: b.epoch,
    to: after.find((a) => a.rank === b.rank)?.epoch,
  }));
  const isRight = ({ rank, from, to }: (typeof pairs)[number]) =>
    to !== undefined && (stayed.has(rank) ? to === from : to > from);
  return {
    what:
      stayed.size === 0
        ? "every rank came back in a new epoch"
        : `the ranks of ${cycle.vm} came back in a new epoch, the others kept theirs`,
    ok: pairs.length === ranks && stayed.size < ranks && pairs.every(isRight),
    detail: pairs.map(({ rank, from, to }) => `rank ${rank}: ${from} to ${to ?? "gone"}`).join(", "),
  };
}

function bytesGrew(evidence: Evidence, when: "before" | "after"): Check {
  const { routes, ranks } = evidence;
  return {
    what: `every rank moved bytes over openib ${when} the cycle`,
    ok: routes.length === ranks && routes.every((r) => r[when].openib > 0),
    detail: routes.map((r) => `rank ${r.rank}: ${r[when].openib}`).join(", "),
  };
}

/** Ranks of the moving VM have no other way to the rest of the job; which others talk to them is the job's matter. */
function ranOverTcp({ routes, cycle }: Evidence): Check {
  const moving = routes.filter((r) => r.vm === cycle.vm);
  const others = routes.filter((r) => r.vm !== cycle.vm);
  return {
    what: "the job went on over tcp during the cycle",
    ok: moving.length > 0 && moving.every((r) => r.during.tcp > 0) && others.some((r) => r.during.tcp > 0),
    detail: routes.map((r) => `rank ${r.rank}: ${r.during.tcp}`).join(", "),
  };
}

function noneHeld({ cycle, ranks }: Evidence): Check {
  return {
    what: "no rank was held",
    ok: cycle.ranks.length === ranks && cycle.ranks.every((r) => r.timings.held === 0),
    detail:
      cycle.ranks.map((r) => `rank ${r.rank}: ${formatMs(r.timings.held / 1000)}`).join(", ") || "no rank",
  };
}

/** A gap of the job longer than this part of the cycle means that it waited for the move. */
const mostOfCycle = 0.25;

/** What live promises of symvirt's own workloads. */
function liveChecks({ cycle, asked }: Evidence, own: NonNullable<Evidence["own"]>): Check[] {
  if (asked !== "live") return [];
  const { result, iterations } = own;
  const gap = result?.longestGapMs ?? Infinity;
  return [
    {
      what: "the cycle was live, as asked",
      ok: cycle.strategy === "live",
      detail: `the jobs went through it by strategy ${cycle.strategy}`,
    },
    {
      what: "the job iterated while the card was away",
      ok: iterations.away > 0,
      detail: `${iterations.away} iterations, ${iterations.during} in the whole cycle`,
    },
    {
      what: `the job's longest gap was below ${mostOfCycle * 100} % of the cycle`,
      ok: gap < mostOfCycle * cycle.totalMs,
      detail: `${formatMs(gap)} of ${formatMs(cycle.totalMs)}`,
    },
  ];
}

/** All checks, in the order a reader would ask. Checks about iterations are left out for a program of the user's. */
export function demoChecks(evidence: Evidence): Check[] {
  const { cycle, ranks, before, after, exitCode, own } = evidence;
  const checks: Check[] = [
    {
      what: `${cycle.vm} was moved to ${cycle.to}`,
      ok: cycle.outcome === "done",
      detail: cycle.message || cycle.outcome,
    },
    {
      what: "all ranks ran on openib before the cycle",
      ok: onOpenib(before, ranks),
      detail: routesOf(before),
    },
    { what: "all ranks run on openib after the cycle", ok: onOpenib(after, ranks), detail: routesOf(after) },
    epochsGrew(evidence),
    { what: "the job ended with exit code 0", ok: exitCode === 0, detail: `exit code ${exitCode}` },
  ];
  if (cycle.strategy === "live") checks.push(ranOverTcp(evidence), noneHeld(evidence));
  if (own === null) return checks;
  const { result, iterations } = own;
  return [
    ...checks,
    bytesGrew(evidence, "before"),
    bytesGrew(evidence, "after"),
    {
      what: "the job verified its result",
      ok: result?.ok === true && result.ranks === ranks,
      detail: result === null ? "no result line" : `checksum ${result.checksum}`,
    },
    {
      what: "the job iterated before and after the cycle",
      ok: iterations.before > 0 && iterations.after > 0,
      detail: `${iterations.before} before, ${iterations.during} during, ${iterations.after} after`,
    },
    ...liveChecks(evidence, own),
  ];
}
