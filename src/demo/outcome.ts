/** What the demo leaves behind: the report, the page, the words. */
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Figure } from "../timeline/input.js";
import { timelinePage } from "../timeline/page.js";
import { timelineSvg } from "../timeline/svg.js";
import { formatCount, formatMs } from "../timeline/scale.js";
import type { DemoReport } from "./report.js";
import type { DemoResult } from "./run-demo.js";
import { checkLines, jobLines, phaseLines, routeLines } from "./tables.js";

/** True only if every check held. */
export function demoHolds(result: DemoResult): boolean {
  return result.checks.every((check) => check.ok);
}

/** The machine-readable result. */
export function toReport(result: DemoResult, accelerator: string, timeline: string): DemoReport {
  const { cycle, job, exitCode, routes, bands, samples } = result;
  return {
    schemaVersion: 1,
    ok: demoHolds(result),
    accelerator,
    job: {
      ok: exitCode === 0 && (job === null || job.result?.ok === true),
      iterations: job?.result?.iterations ?? null,
      longestGapMs: job?.result?.longestGapMs ?? null,
      awayIterations: job?.iterations.away ?? null,
    },
    cycle: {
      strategy: cycle.strategy,
      totalMs: cycle.totalMs,
      phases: cycle.phases.map(({ vm, phase, startMs, ms }) => ({ vm, phase, startMs, ms })),
    },
    routes,
    bands: bands.map(({ rank, vm, samples: own }) => ({ rank, vm, samples: [...own] })),
    iterations: samples.map(({ atMs, iteration, gapMs }) => ({ ms: Math.round(atMs), iteration, gapMs })),
    timeline,
  };
}

function figures({ job, exitCode }: DemoResult): Figure[] {
  const result = job?.result ?? null;
  if (job === null || result === null) return [{ label: "Exit code of the job", value: String(exitCode) }];
  const { before, during, after, away } = job.iterations;
  return [
    { label: "Longest gap of the job", value: formatMs(result.longestGapMs) },
    { label: "Iterations", value: formatCount(result.iterations) },
    { label: "before / during / after", value: [before, during, after].map(formatCount).join(" / ") },
    { label: "Iterations while the card was away", value: formatCount(away) },
    { label: "Checksum, verified", value: result.checksum },
  ];
}

/** Writes timeline.html, timeline.svg (the drawing alone) and timeline.json into a folder; returns the report (with the page's path in it). */
export async function writeOutcome(
  result: DemoResult,
  accelerator: string,
  folder: string,
): Promise<DemoReport> {
  const page = join(folder, "timeline.html");
  const report = toReport(result, accelerator, page);
  const { cycle, jobName, samples, routes, bands, checks, job } = result;
  await mkdir(folder, { recursive: true });
  const input = { cycle, job: jobName, samples, routes, bands, figures: figures(result) };
  await writeFile(page, timelinePage(input));
  await writeFile(join(folder, "timeline.svg"), `${timelineSvg(input)}\n`);
  const detail = { cycle, job: job?.result ?? null, iterations: job?.iterations ?? null, checks };
  await writeFile(join(folder, "timeline.json"), `${JSON.stringify({ ...report, detail }, null, 2)}\n`);
  return report;
}

/** The result for a reader, one string a line. */
export function outcomeLines(result: DemoResult, report: DemoReport): string[] {
  const { cycle, job, jobName, exitCode, routes, checks } = result;
  return [
    "",
    ...phaseLines(cycle),
    "",
    ...(job === null ? [`Job ${jobName}: exit code ${exitCode}`] : jobLines(job.result, job.iterations)),
    "",
    ...routeLines(routes),
    "",
    ...checkLines(checks),
    "",
    `timeline: ${report.timeline}`,
    report.ok
      ? `The demo holds: ${cycle.vm} was moved from ${cycle.from} to ${cycle.to} with its card, under the running job.`
      : "The demo does NOT hold.",
  ];
}
