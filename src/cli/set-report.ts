/** Plan and outcome of a checkpoint or restart in words, as both verbs tell them. */
import { Findings } from "../controller/findings.js";
import type { Finding } from "../controller/findings.js";
import type { SetReport } from "../controller/report.js";
import { exitOf } from "./migrate.js";
import { printJson, say, style } from "./shared/talk.js";

/** The plan for people. */
export function setPlanLines(title: string, steps: readonly string[], list: readonly Finding[]): string[] {
  const findings = new Findings();
  findings.list.push(...list);
  const refused = findings.refusals().length > 0;
  const lines = [title];
  if (!refused) for (const [i, step] of steps.entries()) lines.push(`  ${i + 1}. ${step}`);
  for (const { level, text, hint } of list) {
    const mark =
      level === "note" ? style(process.stdout, "yellow", "note:") : style(process.stdout, "red", "refused:");
    lines.push(`  ${mark} ${text}${hint === undefined ? "" : ` (${hint})`}`);
  }
  lines.push(refused ? "it cannot be done now" : "it can be done");
  return lines;
}

/** The report on stdout if it is wanted, the outcome in words on stderr. Returns the exit code. */
export function tellSet(report: SetReport, json: boolean): number {
  if (json) printJson(report);
  tellSetReport(report);
  return exitOf(report);
}

function tellSetReport(report: SetReport): void {
  const colour = { done: "green", "rolled-back": "yellow", "needs-operator": "red" } as const;
  const word = style(process.stderr, colour[report.outcome], report.outcome);
  say(`cycle ${report.cycle}: ${word} after ${(report.totalMs / 1000).toFixed(1)} s`);
  say(report.message);
  if (report.bytes === null) return;
  const mib = (bytes: number) => Math.round(bytes / 2 ** 20);
  const pauses = report.vms.map(({ vm, pauseMs }) => `${vm} ${Math.round(pauseMs ?? 0)} ms`).join(", ");
  say(`paused: ${pauses}; without network: ${Math.round(report.withoutNetworkMs ?? 0)} ms`);
  say(`${mib(report.bytes.raw)} MiB captured, ${mib(report.bytes.stored)} MiB stored`);
}
