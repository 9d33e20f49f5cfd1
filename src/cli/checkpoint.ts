/** `symvirt checkpoint`: all VMs at one instant, to be started from again. */
import { Command, Option } from "commander";
import { checkpointRefusal } from "../controller/checkpoint/plan-checkpoint.js";
import { Controller } from "../controller/script.js";
import { type Strategy, strategies } from "../controller/strategy.js";
import { ExitCode, SymvirtError } from "../errors.js";
import { exitOf } from "./migrate.js";
import { setPlanLines, tellSetReport } from "./set-report.js";
import { type ClusterFlags, clusterPathOf, duration, withCluster } from "./shared/options.js";
import { openProgress } from "./shared/progress.js";
import { catchingSignals, type StopSignals } from "./shared/stop.js";
import { data, printJson, say } from "./shared/talk.js";
import { withTimeout } from "./shared/timeout.js";

interface CheckpointFlags extends ClusterFlags {
  name?: string;
  dryRun?: boolean;
  timeout?: number;
  strategy?: Strategy;
}

export function checkpointCommand(): Command {
  return withCluster(new Command("checkpoint"))
    .description("Capture memory and disks of all VMs as one consistent cut, under the running job")
    .option("--name <name>", "part of the checkpoint's id, for people")
    .option("--dry-run", "plan only")
    .option("--timeout <duration>", "give it up if it is not done by then, e.g. 5m", duration)
    .addOption(
      new Option(
        "--strategy <name>",
        "park: the job's ranks are held meanwhile (default); live: they run on over tcp",
      ).choices(strategies),
    )
    .addHelpText(
      "after",
      "\nExample:\n  symvirt checkpoint --name nightly\n  symvirt checkpoints\n\n" +
        "Exit codes: 0 done, 3 refused before anything was touched, 5 given up and the job runs as before,\n" +
        "6 a person must act (the message says how), 7 VMM or agent unreachable.",
    )
    .action(async (flags: CheckpointFlags) => {
      await catchingSignals(async (stop) => {
        process.exitCode = await checkpoint(flags, stop);
      });
    });
}

async function checkpoint(flags: CheckpointFlags, stop: StopSignals): Promise<number> {
  const controller = await Controller.open(clusterPathOf(flags));
  const asked = flags.strategy === undefined ? {} : { strategy: flags.strategy };
  if (flags.dryRun === true) {
    const plan = await controller.planCheckpoint({ ...asked, signal: stop.signal });
    const refused = checkpointRefusal(plan);
    const { facts: _, target, ...rest } = plan;
    if (flags.json === true)
      printJson({ schemaVersion: 1, ok: refused === undefined, ...rest, target: target ?? null });
    else
      for (const line of setPlanLines(`checkpoint, strategy ${plan.strategy}`, plan.steps, plan.findings))
        data(line);
    return refused?.exitCode ?? ExitCode.done;
  }
  const { signal, clear } = withTimeout(stop.signal, flags.timeout);
  const progress = openProgress();
  try {
    const report = await controller.checkpoint({
      ...{ ...asked, signal },
      ...(flags.name === undefined ? {} : { name: flags.name }),
      onPlan: ({ findings }) => {
        for (const { level, text } of findings) if (level === "note") say(`note: ${text}`);
      },
      onProgress: (target, now) => progress.update(target, now),
    });
    await progress.end();
    if (flags.json === true) printJson(report);
    tellSetReport(report);
    return stop.exitCode() ?? exitOf(report);
  } catch (error) {
    await progress.end();
    const code = stop.exitCode();
    if (code === undefined || !(error instanceof SymvirtError)) throw error;
    say(`symvirt: ${error.message}`);
    return code;
  } finally {
    clear();
  }
}
