/** `symvirt restart ID`: all VMs of a checkpoint again, when they have died. */
import { Command, InvalidArgumentError } from "commander";
import { restartRefusal } from "../controller/checkpoint/plan-restart.js";
import type { SetReport } from "../controller/report.js";
import { Controller } from "../controller/script.js";
import { ExitCode } from "../errors.js";
import { noDryRun, withinTime } from "./migrate.js";
import { setPlanLines, tellSet } from "./set-report.js";
import { type ClusterFlags, clusterPathOf, duration, withCluster } from "./shared/options.js";
import { type ServerFlags, serverOf, showView, withServer } from "./shared/server.js";
import { catchingSignals, type StopSignals } from "./shared/stop.js";
import { data, printJson, say } from "./shared/talk.js";

interface RestartFlags extends ClusterFlags, ServerFlags {
  on: Record<string, string>;
  gone: string[];
  dryRun?: boolean;
  timeout?: number;
}

export function restartCommand(): Command {
  return withServer(withCluster(new Command("restart")))
    .description("Start all VMs of a checkpoint again; refused while one of them may still run")
    .argument("<id>", "checkpoint, as `symvirt checkpoints` shows it")
    .option(
      "--on <vm=host...>",
      "where a VM is to run; the others go where they were, or to a host with a card for them",
      placed,
      {},
    )
    .option(
      "--gone <host...>",
      "you vouch that this host is off: it is not asked whether it still runs a VM",
      [],
    )
    .option("--dry-run", "plan only; the checkpoint is read and verified")
    .option("--timeout <duration>", "give it up if it is not done by then, e.g. 5m", duration)
    .addHelpText(
      "after",
      "\nExample:\n  symvirt restart 20261125T013000Z-nightly --on vm1=h3 --gone h1\n\n" +
        "Exit codes: 0 done, 3 refused before anything was started, 5 it failed and what was started is ended again,\n" +
        "6 a person must act (the message says how), 7 a host is unreachable.",
    )
    .action(async (id: string, flags: RestartFlags) => {
      await catchingSignals(async (stop) => {
        process.exitCode = await restart(id, flags, stop);
      });
    });
}

/** "vm1=h3", added to those before. */
function placed(text: string, before: Record<string, string>): Record<string, string> {
  const match = /^([^=]+)=([^=]+)$/.exec(text);
  if (match?.[1] === undefined || match[2] === undefined)
    throw new InvalidArgumentError("VM=HOST, for example vm1=h3");
  if (Object.hasOwn(before, match[1])) throw new InvalidArgumentError(`${match[1]} is given twice`);
  return { ...before, [match[1]]: match[2] };
}

async function restart(id: string, flags: RestartFlags, stop: StopSignals): Promise<number> {
  const { on, gone } = flags;
  const tell = (report: SetReport): number => tellSet(report, flags.json === true);
  const remote = await serverOf(flags);
  if (remote !== undefined) {
    if (flags.dryRun === true) throw noDryRun();
    return await withinTime(flags.timeout, stop, async (signal, progress) => {
      const { client, target } = remote;
      const follow = { body: { checkpoint: id, on, gone }, signal, onProgress: showView(progress) };
      const view = await client.operate(target, "/v1/restart", follow);
      await progress.end();
      return tell(client.reportOf(view) as SetReport);
    });
  }
  const controller = await Controller.open(clusterPathOf(flags));
  if (flags.dryRun === true) {
    const plan = await controller.planRestart({ id, on, gone, signal: stop.signal });
    const refused = restartRefusal(plan);
    if (flags.json === true)
      printJson({ schemaVersion: 1, ok: refused === undefined, ...plan, target: plan.target ?? null });
    else for (const line of setPlanLines(`restart ${id}`, plan.steps, plan.findings)) data(line);
    return refused?.exitCode ?? ExitCode.done;
  }
  return await withinTime(flags.timeout, stop, async (signal, progress) => {
    const report = await controller.restart({
      ...{ id, on, gone, signal },
      onPlan: ({ findings }) => {
        for (const { level, text } of findings) if (level === "note") say(`note: ${text}`);
      },
      onProgress: (target, now) => progress.update(target, now),
    });
    await progress.end();
    return tell(report);
  });
}
