/** `npm run eval`: the evaluation as in the paper, docs/evaluation.md. Not part of the product. */
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { CommanderError } from "commander";
import { ExitCode, SymvirtError } from "../errors.js";
import { endRuns } from "../testbed/command.js";
import { sayOn } from "../testbed/progress.js";
import { dismiss, startUndertaker } from "../testbed/testbed.js";
import { evalSvg } from "./drawing.js";
import { openEvalLab } from "./lab-world.js";
import { type EvalFlags, evalCommand } from "./options.js";
import { allRight, type EvalResult, parseResults } from "./result.js";
import { runEval } from "./run.js";
import { evalLines } from "./tables.js";
import { keepTalking } from "../testbed/keep-talking.js";

const say = sayOn("eval");
const print = (line: string): void => void process.stdout.write(`${line}\n`);

async function draw(results: readonly EvalResult[], folder: string): Promise<void> {
  const path = join(resolve(folder), "evaluation.svg");
  await mkdir(resolve(folder), { recursive: true });
  await writeFile(path, evalSvg(results));
  say(`the drawing is ${path}`);
}

async function show(results: readonly EvalResult[], flags: EvalFlags): Promise<number> {
  if (flags.json !== true) for (const line of evalLines(results)) print(line);
  await draw(results, flags.out);
  return allRight(results) ? ExitCode.done : ExitCode.internal;
}

/** Results of earlier runs, in the order of the files. */
async function read(files: readonly string[]): Promise<EvalResult[]> {
  const found: EvalResult[] = [];
  for (const file of files) {
    const text = await readFile(file, "utf8").catch((cause: unknown) => {
      throw new SymvirtError("usage", `${file} cannot be read: ${String(cause)}`, { cause });
    });
    found.push(...parseResults(text, file));
  }
  return found;
}

async function evaluate(flags: EvalFlags, signal: AbortSignal): Promise<number> {
  const undertaker = startUndertaker(flags.name);
  try {
    const lab = await openEvalLab(flags.name, say, signal);
    let results: EvalResult[];
    try {
      const tell = (result: EvalResult) => {
        if (flags.json === true) print(JSON.stringify(result));
      };
      results = await runEval(lab.world, { plan: flags, tell, say, signal });
    } finally {
      await endRuns();
      await lab.close();
    }
    return await show(results, flags);
  } finally {
    dismiss(undertaker);
  }
}

keepTalking();
const abort = new AbortController();
for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const)
  process.on(name, () => {
    if (!abort.signal.aborted) say("stopping; the lab is taken down");
    const exit = name === "SIGINT" ? "interrupted" : "terminated";
    abort.abort(new SymvirtError(exit, "the evaluation was interrupted"));
  });

try {
  await evalCommand(async (flags) => {
    process.exitCode =
      flags.from === undefined
        ? await evaluate(flags, abort.signal)
        : await show(await read(flags.from), flags);
  }).parseAsync();
} catch (caught) {
  // Whatever was under way when it was told to stop fails in its own way.
  const error: unknown = abort.signal.aborted ? abort.signal.reason : caught;
  if (error instanceof CommanderError) process.exitCode = error.exitCode === 0 ? 0 : ExitCode.usage;
  else {
    say(error instanceof Error ? error.message : String(error));
    if (error instanceof SymvirtError && error.hint !== undefined) say(`  ${error.hint}`);
    process.exitCode = error instanceof SymvirtError ? error.exitCode : ExitCode.internal;
  }
}
