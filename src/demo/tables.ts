/** The demo's numbers as plain text. */
import type { CycleReport } from "../controller/report.js";
import type { RouteBytes } from "../timeline/input.js";
import { formatBytes, formatCount, formatMs } from "../timeline/scale.js";
import { vmsOf } from "../timeline/svg.js";
import type { Check } from "./checks.js";
import type { IterationCount } from "./job-clock.js";
import type { JobResult } from "./job-log.js";

/** Pads rows to columns; the first `words` columns are left-aligned, the others right-aligned. */
export function textTable(
  head: readonly string[],
  rows: readonly (readonly string[])[],
  words: number,
): string[] {
  const all = [head, ...rows];
  const widths = head.map((_, i) => Math.max(...all.map((row) => row[i]?.length ?? 0)));
  const line = (row: readonly string[]) =>
    row
      .map((cell, i) => (i < words ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0)))
      .join("  ")
      .trimEnd();
  return [line(head), widths.map((w) => "-".repeat(w)).join("  "), ...rows.map(line)];
}

/** One row per VM and phase, in the order they began. */
export function phaseLines(cycle: CycleReport): string[] {
  const rows = vmsOf(cycle.phases, cycle.vm).flatMap((vm) =>
    cycle.phases
      .filter((span) => span.vm === vm)
      .sort((a, b) => a.startMs - b.startMs)
      .map((span) => [vm, span.phase, formatMs(span.startMs), formatMs(span.ms)]),
  );
  return [
    `Cycle ${cycle.cycle} (${cycle.strategy}): ${cycle.vm} from ${cycle.from} to ${cycle.to}, ${formatMs(cycle.totalMs)} in all`,
    ...textTable(["VM", "phase", "start", "time"], rows, 2),
  ];
}

export function routeLines(routes: readonly RouteBytes[]): string[] {
  const rows = routes.map((r) => [
    String(r.rank),
    r.vm,
    ...[r.before, r.during, r.after].flatMap((b) => [formatBytes(b.openib), formatBytes(b.tcp)]),
  ]);
  const head = ["rank", "VM", "openib before", "tcp", "openib during", "tcp", "openib after", "tcp"];
  return ["Payload bytes per rank", ...textTable(head, rows, 2)];
}

export function jobLines(result: JobResult | null, iterations: IterationCount): string[] {
  if (result === null) return ["The job gave no result"];
  const { before, during, after, away } = iterations;
  return [
    `Job ${result.workload} on ${result.ranks} ranks: ${result.ok ? "every check passed" : "FAILED"}, checksum ${result.checksum}`,
    `  iterations: ${formatCount(result.iterations)} (${formatCount(before)} before, ${formatCount(during)} during, ${formatCount(after)} after the cycle; ${formatCount(away)} while the card was away)`,
    `  mean ${formatMs(result.meanMs)}, longest gap ${formatMs(result.longestGapMs)} at ${result.longestGapAt.toFixed(1)} s`,
  ];
}

export function checkLines(checks: readonly Check[]): string[] {
  return checks.map((c) => `${c.ok ? "ok  " : "FAIL"}  ${c.what}${c.ok ? "" : ` (${c.detail})`}`);
}
