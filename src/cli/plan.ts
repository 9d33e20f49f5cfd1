/** `symvirt plan VM --to HOST`: what a migration would do, and what stands against it. */
import { Command, Option } from "commander";
import { limitsInWords } from "../controller/limits.js";
import { refusal } from "../controller/migrate.js";
import type { MigrationPlan } from "../controller/plan.js";
import { Controller } from "../controller/script.js";
import { type Strategy, strategies } from "../controller/strategy.js";
import {
  type ClusterFlags,
  clusterPathOf,
  type LimitFlags,
  limitsOf,
  withCluster,
  withLimits,
} from "./shared/options.js";
import { catchingSignals } from "./shared/stop.js";
import { data, printJson, style } from "./shared/talk.js";

interface PlanFlags extends ClusterFlags, LimitFlags {
  to: string;
  strategy?: Strategy;
}

export function planCommand(): Command {
  return withLimits(withCluster(new Command("plan")))
    .description("Say what a migration would do and what stands against it; touches nothing")
    .argument("<vm>", "VM of the cluster file")
    .requiredOption("--to <host>", "destination host")
    .addOption(
      new Option("--strategy <name>", "the strategy of the migration to be planned").choices(strategies),
    )
    .addHelpText(
      "after",
      "\nExample:\n  symvirt plan vm1 --to h3\n\nExit code 0: it can be done, 3: it is refused.",
    )
    .action(async (vm: string, flags: PlanFlags) => {
      await catchingSignals(async ({ signal }) => {
        const controller = await Controller.open(clusterPathOf(flags));
        const plan = await controller.plan({
          ...{ vm, to: flags.to, signal, limits: limitsOf(flags) },
          ...(flags.strategy === undefined ? {} : { strategy: flags.strategy }),
        });
        if (flags.json === true) printPlanJson(plan);
        else for (const line of planLines(plan)) data(line);
        process.exitCode = refusal(plan)?.exitCode ?? 0;
      }, "stopping");
    });
}

export function printPlanJson(plan: MigrationPlan): void {
  printJson({ schemaVersion: 1, ok: refusal(plan) === undefined, ...plan, target: plan.target ?? null });
}

/** The plan for people. */
export function planLines(plan: MigrationPlan): string[] {
  const lines = [`migrate ${plan.vm} from ${plan.from} to ${plan.to}, strategy ${plan.strategy}`];
  const refused = refusal(plan) !== undefined;
  if (!refused) {
    for (const [i, step] of plan.steps.entries()) lines.push(`  ${i + 1}. ${step}`);
    lines.push(`  pre-copy: ${limitsInWords(plan.limits, plan.strategy)}`);
    if (plan.memoryBytes !== undefined)
      lines.push(`  guest memory: ${Math.round(plan.memoryBytes / 2 ** 20)} MiB`);
  }
  for (const { level, text, hint } of plan.findings) {
    const mark =
      level === "note" ? style(process.stdout, "yellow", "note:") : style(process.stdout, "red", "refused:");
    lines.push(`  ${mark} ${text}${hint === undefined ? "" : ` (${hint})`}`);
  }
  lines.push(refused ? "it cannot be done now" : "it can be done");
  return lines;
}
