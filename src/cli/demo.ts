/** `symvirt demo`: a lab, an MPI job in it, and a VM moved under the job. */
import { accessSync, constants, statSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { resolve } from "node:path";
import { Command, InvalidArgumentError, Option } from "commander";
import { type Strategy, strategies } from "../controller/strategy.js";
import { type LabStage, openLabStage } from "../demo/lab-stage.js";
import { demoHolds, outcomeLines, writeOutcome } from "../demo/outcome.js";
import type { DemoFailure } from "../demo/report.js";
import { type DemoPlan, runDemo } from "../demo/run-demo.js";
import { ExitCode, SymvirtError } from "../errors.js";

interface DemoFlags {
  json?: boolean;
  job?: boolean;
  keep?: boolean;
  strategy: Strategy;
  vms: number;
  ranks: number;
  out: string;
  name: string;
}

const talk = (line: string): void => {
  process.stderr.write(`${line}\n`);
};
const data = (line: string): void => {
  process.stdout.write(`${line}\n`);
};

/** A whole number between two bounds. */
function between(least: number, most: number) {
  return (text: string): number => {
    const value = Number(text);
    if (!Number.isInteger(value) || value < least || value > most)
      throw new InvalidArgumentError(`a whole number from ${least} to ${most}`);
    return value;
  };
}

/** Checks the program of `--job` before anything is started. */
function ownJob(words: readonly string[]): NonNullable<DemoPlan["own"]> {
  const [path, ...args] = words;
  if (path === undefined)
    throw new SymvirtError("usage", "--job needs a program", { hint: "--job ./a.out [ARGS...]" });
  try {
    accessSync(path, constants.R_OK | constants.X_OK);
  } catch (cause) {
    throw new SymvirtError("usage", `"${path}" is not a program that can be run`, {
      cause,
      hint: "give the path of an executable MPI program",
    });
  }
  if (!statSync(path).isFile())
    throw new SymvirtError("usage", `"${path}" is not a file`, {
      hint: "give the path of an executable MPI program",
    });
  return { path, args };
}

/** Exit code of a demo that ran: a program of the user's own first, then whether everything held. */
function verdict(plan: DemoPlan, exitCode: number, holds: boolean): number {
  if (plan.own !== undefined && exitCode !== 0) return exitCode;
  return holds ? ExitCode.done : ExitCode.internal;
}

async function demo(flags: DemoFlags, words: readonly string[], signal: AbortSignal): Promise<number> {
  if (flags.job !== true && words.length > 0)
    throw new SymvirtError("usage", `Unexpected argument "${words[0]}"`, {
      hint: "a program of yours goes after --job",
    });
  const { strategy } = flags;
  const plan: DemoPlan = {
    ranksPerVm: flags.ranks,
    strategy,
    ...(flags.job === true ? { own: ownJob(words) } : {}),
  };
  const folder = resolve(flags.out);
  await mkdir(folder, { recursive: true }).catch((cause: unknown) => {
    throw new SymvirtError("usage", `Cannot make the output folder "${folder}"`, {
      cause,
      hint: "choose another: --out DIR",
    });
  });
  const tell = flags.json === true ? talk : data;
  let stage: LabStage | undefined;
  try {
    stage = await openLabStage({
      ...{
        name: flags.name,
        vms: flags.vms,
        ranksPerVm: flags.ranks,
        keep: flags.keep === true,
        strategy,
      },
      ...{ say: talk, signal },
    });
    const result = await runDemo(stage, plan, { say: talk, output: tell }, signal);
    const report = await writeOutcome(result, stage.accelerator, folder);
    const holds = demoHolds(result);
    if (!holds) await saveLogs(stage, folder);
    for (const line of outcomeLines(result, report)) tell(line);
    if (flags.json === true) data(JSON.stringify(report));
    return verdict(plan, result.exitCode, holds);
  } catch (error) {
    if (stage !== undefined && !signal.aborted) await saveLogs(stage, folder);
    throw error;
  } finally {
    await stage?.close();
  }
}

async function saveLogs(stage: LabStage, folder: string): Promise<void> {
  await stage.collectLogs(resolve(folder, "logs"));
  talk(`the guests' logs are in ${resolve(folder, "logs")}`);
}

/** Runs the verb; SIGINT, SIGTERM and SIGHUP take the lab down before it ends. */
async function guarded(flags: DemoFlags, words: readonly string[]): Promise<void> {
  const abort = new AbortController();
  let interrupted: number | undefined;
  const onSignal = (name: NodeJS.Signals) => {
    interrupted ??= name === "SIGINT" ? ExitCode.interrupted : ExitCode.terminated;
    if (!abort.signal.aborted) talk("symvirt demo: interrupted, taking the lab down");
    abort.abort(
      new SymvirtError(name === "SIGINT" ? "interrupted" : "terminated", "The demo was interrupted"),
    );
  };
  process.on("SIGINT", onSignal).on("SIGTERM", onSignal).on("SIGHUP", onSignal);
  try {
    process.exitCode = await demo(flags, words, abort.signal);
  } catch (error) {
    if (interrupted === undefined && !(error instanceof SymvirtError)) throw error;
    process.exitCode = interrupted ?? (error instanceof SymvirtError ? error.exitCode : ExitCode.internal);
    const message = error instanceof Error ? error.message : String(error);
    const hint = error instanceof SymvirtError ? error.hint : undefined;
    talk(`symvirt demo: ${message}`);
    if (hint !== undefined) talk(`  ${hint}`);
    const failure: DemoFailure = {
      ...{ schemaVersion: 1, ok: false },
      error: { message, ...(hint === undefined ? {} : { hint }) },
    };
    if (flags.json === true) data(JSON.stringify(failure));
  } finally {
    process.off("SIGINT", onSignal).off("SIGTERM", onSignal).off("SIGHUP", onSignal);
  }
}

/** The `demo` verb. */
export function demoCommand(): Command {
  return new Command("demo")
    .description(
      "boot a small lab, start an MPI job, move a VM with its card under it, and show what happened",
    )
    .argument("[program...]", "with --job: an MPI program of yours and its arguments, instead of the stencil")
    .option("--job", "run PROGRAM [ARGS...] (all words after it are the program's)")
    .option("--json", "print one result object on stdout, all else on stderr")
    .addOption(
      new Option("--strategy <name>", "live: the job runs on over tcp meanwhile; park: its ranks are held")
        .choices(strategies)
        .default("live" satisfies Strategy),
    )
    .option("--vms <n>", "VMs that run ranks", between(2, 8), 2)
    .option("--ranks <n>", "ranks per VM", between(1, 8), 2)
    .option("--out <dir>", "folder of timeline.html, timeline.svg and timeline.json", "demo-output")
    .option("--name <name>", "name of the lab", "demo")
    .option("--keep", "leave the lab up")
    .passThroughOptions()
    .action((words: string[], flags: DemoFlags) => guarded(flags, words));
}
