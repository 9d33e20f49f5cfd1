/** `npm run bench -- overhead|blackout|convergence|checkpoint`: measurements of docs/benchmarks.md. Not part of the product. */
import { Command, CommanderError, InvalidArgumentError } from "commander";
import { ExitCode, SymvirtError } from "../errors.js";
import { defaultPlan, runBlackout } from "./blackout.js";
import { labWorld } from "./blackout-lab.js";
import { defaultCheckpointPlan, runCheckpointBench } from "./checkpoint.js";
import { checkpointLabs } from "./checkpoint-lab.js";
import { defaultConvergence, runConvergence } from "./convergence.js";
import { convergenceLab } from "./convergence-lab.js";
import { defaultSizes, type OverheadOptions, runOverhead } from "./overhead.js";
import { overheadInLab } from "./overhead-lab.js";
import { blackoutLines, checkpointLines, convergenceLines, overheadLines } from "./tables.js";
import { keepTalking } from "../testbed/keep-talking.js";

const say = (line: string): void => {
  process.stderr.write(`${line}\n`);
};

function whole(least: number, most: number) {
  return (text: string): number => {
    const value = Number(text);
    if (!Number.isInteger(value) || value < least || value > most)
      throw new InvalidArgumentError(`a whole number from ${least} to ${most}`);
    return value;
  };
}

function sizes(text: string): number[] {
  return text.split(",").map(whole(1, 1 << 26));
}

function memories(text: string): number[] {
  return text.split(",").map(whole(768, 1 << 20));
}

/** Prints a report as a table, or as JSON and nothing else. */
function print<T>(report: T, lines: (report: T) => string[], json: boolean): void {
  process.stdout.write(json ? `${JSON.stringify(report)}\n` : `${lines(report).join("\n")}\n`);
}

interface ConvergenceFlags {
  json?: boolean;
  runs: number;
  bandwidth: number;
  megabytes: number;
  parkAfter: number;
  cap: number;
  name: string;
}

function program(signal: AbortSignal): Command {
  // Before its verbs are made: they inherit it.
  const bench = new Command("bench")
    .exitOverride()
    .description("measures symvirt on this machine; see docs/benchmarks.md");
  bench
    .command("overhead")
    .description(
      "what the library costs a job that nobody moves: on this host over BTL/tcp, and over openib in a lab",
    )
    .option("--json", "print one object on stdout, all else on stderr")
    .option("--runs <n>", "interleaved repetitions of the times", whole(1, 1000), 5)
    .option("--count-runs <n>", "repetitions of the instruction counts, 0 for none", whole(0, 100), 3)
    .option("--bytes <list>", "sizes of messages", sizes, [...defaultSizes])
    .option("--seconds <s>", "for each size and measurement of a run", Number, 0.3)
    .option("--no-lab", "not over openib: that takes a lab of its own, and root")
    .option("--name <name>", "name of the lab", "bench")
    .action(
      async (flags: {
        json?: boolean;
        runs: number;
        countRuns: number;
        bytes: number[];
        seconds: number;
        lab: boolean;
        name: string;
      }) => {
        if (!(flags.seconds > 0 && flags.seconds <= 600))
          throw new SymvirtError("usage", "--seconds must be a number above 0 and up to 600");
        const { runs, countRuns, bytes, seconds, lab, name } = flags;
        const openib = (how: Pick<OverheadOptions, "runs" | "countRuns" | "bytes" | "seconds">) =>
          overheadInLab(name, { ...how, say, signal });
        const options = { runs, countRuns, bytes, seconds, ...(lab ? { openib } : {}) };
        print(await runOverhead({ ...options, say, signal }), overheadLines, flags.json === true);
      },
    );
  bench
    .command("blackout")
    .description("how long a job stands still while one of its VMs moves: in labs of its own")
    .option("--json", "print one object on stdout, all else on stderr")
    .option("--runs <n>", "repetitions of every figure", whole(1, 100), 3)
    .option("--name <name>", "name of the labs", "bench")
    .action(async (flags: { json?: boolean; runs: number; name: string }) => {
      const world = labWorld(flags.name, say, signal);
      print(
        await runBlackout(world, { ...defaultPlan, runs: flags.runs }),
        blackoutLines,
        flags.json === true,
      );
    });
  const { load, capMs } = defaultConvergence;
  bench
    .command("convergence")
    .description("a VM that writes memory faster than it is sent: ranks held, and QEMU's own auto-converge")
    .option("--json", "print one object on stdout, all else on stderr")
    .option("--runs <n>", "repetitions of every figure", whole(1, 100), 3)
    .option(
      "--bandwidth <n>",
      "MiB a second of the stream",
      whole(1, 65_536),
      load.bandwidthBytesPerSecond / 2 ** 20,
    )
    .option("--megabytes <n>", "memory each rank stamps", whole(1, 65_536), load.megabytes)
    .option(
      "--park-after <s>",
      "seconds of pre-copy until the ranks are held",
      whole(1, 3600),
      load.parkAfterMs / 1000,
    )
    .option("--cap <s>", "seconds after which a move counts as not completed", whole(1, 3600), capMs / 1000)
    .option("--name <name>", "name of the lab", "bench")
    .action(async (flags: ConvergenceFlags) => {
      const { runs, bandwidth, megabytes, parkAfter, cap, name } = flags;
      const asked = {
        bandwidthBytesPerSecond: bandwidth * 2 ** 20,
        megabytes,
        parkAfterMs: parkAfter * 1000,
      };
      const world = convergenceLab(name, asked, say, signal);
      const plan = { ...defaultConvergence, runs, load: asked, capMs: cap * 1000 };
      print(await runConvergence(world, plan), convergenceLines, flags.json === true);
    });
  bench
    .command("checkpoint")
    .description(
      "how long VMs and their job stand still for a checkpoint, and how long a restart takes: in labs of its own",
    )
    .option("--json", "print one object on stdout, all else on stderr")
    .option("--runs <n>", "repetitions of every figure", whole(1, 100), 3)
    .option("--memory <list>", "memory of the guests, MiB", memories, [...defaultCheckpointPlan.memoryMiB])
    .option("--name <name>", "name of the labs", "bench")
    .action(async (flags: { json?: boolean; runs: number; memory: number[]; name: string }) => {
      const [first, ...others] = flags.memory;
      if (first === undefined) throw new SymvirtError("usage", "--memory names no size");
      const plan = { ...defaultCheckpointPlan, runs: flags.runs, memoryMiB: [first, ...others] as const };
      const world = checkpointLabs(flags.name, say, signal);
      print(await runCheckpointBench(world, plan), checkpointLines, flags.json === true);
    });
  return bench;
}

const abort = new AbortController();
let interrupted: number | undefined;
keepTalking();
for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const)
  process.on(name, () => {
    interrupted ??= name === "SIGINT" ? ExitCode.interrupted : ExitCode.terminated;
    abort.abort(
      new SymvirtError(name === "SIGINT" ? "interrupted" : "terminated", "The bench was interrupted"),
    );
  });
try {
  await program(abort.signal).parseAsync();
} catch (error) {
  if (error instanceof CommanderError) process.exitCode = error.exitCode === 0 ? 0 : ExitCode.usage;
  else {
    say(`bench: ${error instanceof Error ? error.message : String(error)}`);
    if (error instanceof SymvirtError && error.hint !== undefined) say(`  ${error.hint}`);
    process.exitCode = interrupted ?? (error instanceof SymvirtError ? error.exitCode : ExitCode.internal);
  }
}
