/** `symvirt evacuate HOST`: move every VM of a host away, one after the other. */
import { Command, InvalidArgumentError, Option } from "commander";
import { type EvacuationReport, evacuationRefusal } from "../controller/evacuate.js";
import type { EvacuationPlan } from "../controller/evacuation-plan.js";
import { Controller } from "../controller/script.js";
import { DEFAULT_STRATEGY, type Strategy, strategies } from "../controller/strategy.js";
import { ExitCode } from "../errors.js";
import { noDryRun, withinTime } from "./migrate.js";
import {
  type ClusterFlags,
  clusterPathOf,
  duration,
  type LimitFlags,
  limitsOf,
  withCluster,
  withLimits,
} from "./shared/options.js";
import { type ServerFlags, serverOf, showView, withServer } from "./shared/server.js";
import { catchingSignals, type StopSignals } from "./shared/stop.js";
import { data, printJson, say, style } from "./shared/talk.js";

interface EvacuateFlags extends ClusterFlags, LimitFlags, ServerFlags {
  to?: string[];
  dryRun?: boolean;
  timeout?: number;
  strategy?: Strategy;
}

export function evacuateCommand(): Command {
  return withServer(withLimits(withCluster(new Command("evacuate"))))
    .description("Move every VM of a host to hosts with a free card and room, one after the other")
    .argument("<host>", "host of the cluster file")
    .option("--to <hosts>", "only to these hosts, the first that fits first, e.g. h2,h3", hostList)
    .option("--dry-run", "plan only: which VM goes where, and what stands against it")
    .option(
      "--timeout <duration>",
      "roll back the running cycle and stop if it is not done by then",
      duration,
    )
    .addOption(
      new Option(
        "--strategy <name>",
        `of each migration (default: the cluster file's, else ${DEFAULT_STRATEGY})`,
      ).choices(strategies),
    )
    .addHelpText(
      "after",
      "\nExample:\n  symvirt evacuate h1 --to h2,h3\n\n" +
        "Exit codes: 0 the host is empty, 3 refused before anything was touched, 5 stopped: some VMs are still\n" +
        "there and every job runs, 6 a person must act (the message says how), 7 VMM or agent unreachable.",
    )
    .action(async (host: string, flags: EvacuateFlags) => {
      await catchingSignals(async (stop) => {
        process.exitCode = await evacuate(host, flags, stop);
      });
    });
}

function hostList(text: string): string[] {
  const hosts = text.split(",").map((h) => h.trim());
  if (hosts.every((h) => h !== "")) return hosts;
  throw new InvalidArgumentError('hosts such as "h2" or "h2,h3"');
}

async function evacuate(host: string, flags: EvacuateFlags, stop: StopSignals): Promise<number> {
  const asked = {
    ...{ host, limits: limitsOf(flags) },
    ...(flags.to === undefined ? {} : { to: flags.to }),
    ...(flags.strategy === undefined ? {} : { strategy: flags.strategy }),
  };
  const tell = (report: EvacuationReport): number => {
    if (flags.json === true) printJson(report);
    tellEvacuation(report);
    return exitOfEvacuation(report);
  };
  const remote = await serverOf(flags);
  if (remote !== undefined) {
    if (flags.dryRun === true) throw noDryRun();
    return await withinTime(flags.timeout, stop, async (signal, progress) => {
      const { client, target } = remote;
      const follow = { body: asked, signal, onProgress: showView(progress) };
      const view = await client.operate(target, "/v1/evacuate", follow);
      await progress.end();
      return tell(client.reportOf(view) as EvacuationReport);
    });
  }
  const controller = await Controller.open(clusterPathOf(flags));
  if (flags.dryRun === true) {
    const plan = await controller.planEvacuation({ ...asked, signal: stop.signal });
    const refused = evacuationRefusal(plan);
    if (flags.json === true) printJson({ schemaVersion: 1, ok: refused === undefined, ...plan });
    else for (const line of evacuationLines(plan)) data(line);
    return refused?.exitCode ?? ExitCode.done;
  }
  return await withinTime(flags.timeout, stop, async (signal, progress) => {
    const report = await controller.evacuate({
      ...{ ...asked, signal },
      onPlan: (plan) => {
        for (const { level, text } of plan.findings) if (level === "note") say(`note: ${text}`);
      },
      onMove: ({ vm, to }) => say(`${vm}: to ${to}`),
      onProgress: (target, now) => progress.update(target, now),
    });
    await progress.end();
    return tell(report);
  });
}

export function exitOfEvacuation({ outcome }: Pick<EvacuationReport, "outcome">): number {
  return {
    done: ExitCode.done,
    stopped: ExitCode.rolledBack,
    "needs-operator": ExitCode.needsOperator,
  }[outcome];
}

function tellEvacuation({ outcome, message, totalMs }: EvacuationReport): void {
  const colour = { done: "green", stopped: "yellow", "needs-operator": "red" } as const;
  say(`${style(process.stderr, colour[outcome], outcome)} after ${(totalMs / 1000).toFixed(1)} s`);
  say(message);
}

/** The plan for people. */
export function evacuationLines(plan: EvacuationPlan): string[] {
  const refused = evacuationRefusal(plan) !== undefined;
  const lines = [`evacuate ${plan.host}`, ...plan.moves.map((m, i) => `  ${i + 1}. ${m.vm} to ${m.to}`)];
  for (const { level, text, hint } of plan.findings) {
    const mark =
      level === "note" ? style(process.stdout, "yellow", "note:") : style(process.stdout, "red", "refused:");
    lines.push(`  ${mark} ${text}${hint === undefined ? "" : ` (${hint})`}`);
  }
  if (refused) return [...lines, "it cannot be done now"];
  return [...lines, plan.moves.length === 0 ? "there is no VM to move" : "it can be done"];
}
