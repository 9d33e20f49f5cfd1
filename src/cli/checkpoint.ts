/** `symvirt checkpoint`: all VMs at one instant, to be started from again. */
import { Command, Option } from "commander";
import { checkpointRefusal } from "../controller/checkpoint/plan-checkpoint.js";
import type { SetReport } from "../controller/report.js";
import { Controller } from "../controller/script.js";
import { DEFAULT_STRATEGY, type Strategy, strategies } from "../controller/strategy.js";
import { ExitCode } from "../errors.js";
import { type CaptureMethod, captureMethods } from "../vmm/driver.js";
import { noDryRun, withinTime } from "./migrate.js";
import { setPlanLines, tellSet } from "./set-report.js";
import { type ClusterFlags, clusterPathOf, duration, withCluster } from "./shared/options.js";
import { type ServerFlags, serverOf, showView, withServer } from "./shared/server.js";
import { catchingSignals, type StopSignals } from "./shared/stop.js";
import { data, printJson, say } from "./shared/talk.js";

interface CheckpointFlags extends ClusterFlags, ServerFlags {
  name?: string;
  dryRun?: boolean;
  timeout?: number;
  strategy?: Strategy;
  capture?: CaptureMethod;
}

export function checkpointCommand(): Command {
  return withServer(withCluster(new Command("checkpoint")))
    .description("Capture memory and disks of all VMs as one consistent cut, under the running job")
    .option("--name <name>", "part of the checkpoint's id, for people")
    .option("--dry-run", "plan only")
    .option("--timeout <duration>", "give it up if it is not done by then, e.g. 5m", duration)
    .addOption(
      new Option(
        "--strategy <name>",
        `live: the job runs on over tcp meanwhile; park: its ranks are held (default: the cluster file's, else ${DEFAULT_STRATEGY})`,
      ).choices(strategies),
    )
    .addOption(
      new Option(
        "--capture <method>",
        "background-snapshot: a VM stands still for a moment; stop-and-save: until its memory is written " +
          "(default: the first, where every host can)",
      ).choices(captureMethods),
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
  const asked = {
    ...(flags.strategy === undefined ? {} : { strategy: flags.strategy }),
    ...(flags.capture === undefined ? {} : { capture: flags.capture }),
  };
  const named = flags.name === undefined ? asked : { ...asked, name: flags.name };
  const tell = (report: SetReport): number => tellSet(report, flags.json === true);
  const remote = await serverOf(flags);
  if (remote !== undefined) {
    if (flags.dryRun === true) throw noDryRun();
    return await withinTime(flags.timeout, stop, async (signal, progress) => {
      const { client, target } = remote;
      const follow = { body: named, signal, onProgress: showView(progress) };
      const view = await client.operate(target, "/v1/checkpoint", follow);
      await progress.end();
      return tell(client.reportOf(view) as SetReport);
    });
  }
  const controller = await Controller.open(clusterPathOf(flags));
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
  return await withinTime(flags.timeout, stop, async (signal, progress) => {
    const report = await controller.checkpoint({
      ...{ ...named, signal },
      onPlan: ({ findings }) => {
        for (const { level, text } of findings) if (level === "note") say(`note: ${text}`);
      },
      onProgress: (target, now) => progress.update(target, now),
    });
    await progress.end();
    return tell(report);
  });
}
