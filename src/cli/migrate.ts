/** `symvirt migrate VM --to HOST`: move a VM with its card under a running job. */
import { Command, Option } from "commander";
import { refusal } from "../controller/migrate.js";
import type { CycleReport } from "../controller/report.js";
import { Controller } from "../controller/script.js";
import { DEFAULT_STRATEGY, type Strategy, strategies } from "../controller/strategy.js";
import { ExitCode, SymvirtError } from "../errors.js";
import { anySignal } from "../signals.js";
import { planLines, printPlanJson } from "./plan.js";
import {
  type ClusterFlags,
  clusterPathOf,
  duration,
  type LimitFlags,
  limitsOf,
  withCluster,
  withLimits,
} from "./shared/options.js";
import { openProgress, type ProgressView } from "./shared/progress.js";
import { type ServerFlags, serverOf, showView, withServer } from "./shared/server.js";
import { catchingSignals, type StopSignals } from "./shared/stop.js";
import { data, printJson, say, style } from "./shared/talk.js";

interface MigrateFlags extends ClusterFlags, LimitFlags, ServerFlags {
  to: string;
  dryRun?: boolean;
  timeout?: number;
  strategy?: Strategy;
}

export function migrateCommand(): Command {
  return withServer(withLimits(withCluster(new Command("migrate"))))
    .description(
      "Move a VM to another host: unplug its card, live-migrate, plug a card in, all under the running job",
    )
    .argument("<vm>", "VM of the cluster file")
    .requiredOption("--to <host>", "destination host")
    .option("--dry-run", "plan only, as `symvirt plan`")
    .option("--timeout <duration>", "roll back if it is not done by then, e.g. 5m", duration)
    .addOption(
      new Option(
        "--strategy <name>",
        `live: the job runs on over tcp meanwhile; park: its ranks are held (default: the cluster file's, else ${DEFAULT_STRATEGY})`,
      ).choices(strategies),
    )
    .addHelpText(
      "after",
      "\nExample:\n  symvirt migrate vm1 --to h3 --timeout 5m\n\n" +
        "Exit codes: 0 done, 3 refused before anything was touched, 5 rolled back and the job runs,\n" +
        "6 a person must act (the message says how), 7 VMM or agent unreachable.",
    )
    .action(async (vm: string, flags: MigrateFlags) => {
      await catchingSignals(async (stop) => {
        process.exitCode = await migrate(vm, flags, stop);
      });
    });
}

async function migrate(vm: string, flags: MigrateFlags, stop: StopSignals): Promise<number> {
  const { to } = flags;
  const asked = {
    limits: limitsOf(flags),
    ...(flags.strategy === undefined ? {} : { strategy: flags.strategy }),
  };
  const remote = await serverOf(flags);
  if (remote !== undefined) {
    if (flags.dryRun === true) throw noDryRun();
    return await withinTime(flags.timeout, stop, async (signal, progress) => {
      const { client, target } = remote;
      const body = { vm, to, ...asked };
      const view = await client.operate(target, "/v1/migrate", {
        body,
        signal,
        onProgress: showView(progress),
      });
      await progress.end();
      const report = client.reportOf(view) as CycleReport;
      if (flags.json === true) printJson(report);
      tellReport(report);
      return exitOf(report);
    });
  }
  const controller = await Controller.open(clusterPathOf(flags));
  if (flags.dryRun === true) {
    const plan = await controller.plan({ vm, to, signal: stop.signal, ...asked });
    if (flags.json === true) printPlanJson(plan);
    else for (const line of planLines(plan)) data(line);
    return refusal(plan)?.exitCode ?? ExitCode.done;
  }
  return await withinTime(flags.timeout, stop, async (signal, progress) => {
    const report = await controller.migrate({
      ...{ vm, to, ...asked, signal },
      onPlan: (plan) => {
        for (const { level, text } of plan.findings) if (level === "note") say(`note: ${text}`);
      },
      onProgress: (target, now) => progress.update(target, now),
    });
    await progress.end();
    if (flags.json === true) printJson(report);
    tellReport(report);
    return exitOf(report);
  });
}

export function noDryRun(): SymvirtError {
  return new SymvirtError("usage", "a server does not plan", {
    hint: "run --dry-run with --cluster FILE, where the cluster file is",
  });
}

/**
 * Runs an acting verb with its progress shown, and its signal aborted by Ctrl-C, SIGTERM or when `--timeout` has
 * passed. Returns its exit code, or 130 or 143 if such a signal has come and no person must act.
 */
export async function withinTime(
  timeoutMs: number | undefined,
  stop: StopSignals,
  work: (signal: AbortSignal, progress: ProgressView) => Promise<number>,
): Promise<number> {
  const timeout = new AbortController();
  const passed = () =>
    timeout.abort(new SymvirtError("deadline", `--timeout (${(timeoutMs ?? 0) / 1000} s) has passed`));
  const timer = timeoutMs === undefined ? undefined : setTimeout(passed, timeoutMs);
  const progress = openProgress();
  try {
    const code = await work(anySignal([stop.signal, timeout.signal]), progress);
    return stop.exitCodeOr(code);
  } catch (error) {
    await progress.end();
    // A server that was asked to stop says that it was.
    const wasOurs = error instanceof SymvirtError && error.exit === "terminated" && timeout.signal.aborted;
    if (wasOurs && stop.exitCode() === undefined) throw timeout.signal.reason;
    if (stop.exitCode() === undefined || !(error instanceof SymvirtError)) throw error;
    say(`symvirt: ${error.message}`);
    if (error.hint !== undefined) say(`  ${error.hint}`);
    return stop.exitCodeOr(error.exitCode);
  } finally {
    clearTimeout(timer);
  }
}

export function exitOf({ outcome }: Pick<CycleReport, "outcome">): number {
  return {
    done: ExitCode.done,
    "rolled-back": ExitCode.rolledBack,
    "needs-operator": ExitCode.needsOperator,
  }[outcome];
}

/** The outcome in words, on stderr. */
export function tellReport(report: CycleReport): void {
  const colour = { done: "green", "rolled-back": "yellow", "needs-operator": "red" } as const;
  const word = style(process.stderr, colour[report.outcome], report.outcome);
  say(`cycle ${report.cycle}: ${word} after ${(report.totalMs / 1000).toFixed(1)} s`);
  say(report.message);
  if (report.outcome === "done" && report.preCopy !== null) {
    const { transferredBytes, downtimeMs } = report.preCopy;
    for (const { cause, orderedMs, goneOnMs, late } of report.holds) {
      const ms = goneOnMs === null ? "" : ` for ${((goneOnMs - orderedMs) / 1000).toFixed(1)} s`;
      say(
        `the ranks of ${report.vm} were held${ms}: ${cause}${late.length === 0 ? "" : ` (${late.join("; ")})`}`,
      );
    }
    say(`${Math.round(transferredBytes / 2 ** 20)} MiB sent, downtime ${downtimeMs} ms`);
  }
}
