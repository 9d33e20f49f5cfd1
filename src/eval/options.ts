/** The command line of the evaluation. */
import { Command, InvalidArgumentError, Option } from "commander";
import { type EvalPlan, modes, sizes, workloads } from "./plan.js";

export interface EvalFlags extends EvalPlan {
  json?: boolean;
  /** Files of results by --json: nothing is run, they are shown. */
  from?: string[];
  /** Folder of the drawing. */
  out: string;
  /** Name of the lab. */
  name: string;
}

function whole(least: number, most: number) {
  return (text: string): number => {
    const value = Number(text);
    if (!Number.isInteger(value) || value < least || value > most)
      throw new InvalidArgumentError(`a whole number from ${least} to ${most}`);
    return value;
  };
}

/** Names of a list, by commas; each once, in the list's order. */
function some<T extends string>(all: readonly T[]) {
  return (text: string): T[] => {
    const asked = text.split(",").map((name) => name.trim());
    const unknown = asked.find((name) => !all.some((known) => known === name));
    if (unknown !== undefined)
      throw new InvalidArgumentError(`"${unknown}" is none of ${all.join(", ")} (a list by commas)`);
    return all.filter((known) => asked.includes(known));
  };
}

/** The command; its action is the caller's. */
export function evalCommand(run: (flags: EvalFlags) => Promise<void>): Command {
  return new Command("eval")
    .exitOverride()
    .description(
      "jobs undisturbed, under one migration, and under a checkpoint and restart, in a lab of its own",
    )
    .option("--workloads <list>", `of ${workloads.join(", ")}`, some(workloads), [...workloads])
    .option("--modes <list>", `of ${modes.join(", ")}; "none" is always done`, some(modes), [...modes])
    .addOption(new Option("--size <size>", "of the problems").choices(sizes).default("small"))
    .option(
      "--seconds <s>",
      "length of an undisturbed run; the others do as many iterations",
      whole(5, 86_400),
      60,
    )
    .option("--iterations <n>", "instead of --seconds", whole(10, 1_000_000_000))
    .option("--json", "one object on stdout for each workload and mode, all else on stderr")
    .option("--from <files...>", "run nothing: table and drawing of what --json has printed earlier")
    .option("--out <folder>", "where the drawing goes", "eval-output")
    .option("--name <name>", "name of the lab", "eval")
    .action(run);
}
