/** `npm run soak`: migrations at random under jobs that check their data. Not part of the product. */
import { setTimeout as delay } from "node:timers/promises";
import { Command, CommanderError, InvalidArgumentError } from "commander";
import { ExitCode, SymvirtError } from "../errors.js";
import { labDown } from "../lab/index.js";
import { endRuns } from "../testbed/command.js";
import { sayOn } from "../testbed/progress.js";
import { freshSeed } from "../testbed/random.js";
import { bootTestbed, dismiss, type LabShape, startUndertaker } from "../testbed/testbed.js";
import { labWorld } from "./lab-world.js";
import { planSoak } from "./plan.js";
import { runSoak } from "./soak.js";
import { isGood, summaryLines } from "./summary.js";
import { keepTalking } from "../testbed/keep-talking.js";

interface Flags {
  cycles: number;
  seed: number;
  vms: number;
  ranks: number;
  name: string;
}

const FREE_HOSTS = 2;
/** A cycle that Ctrl-C has caught gets that long to roll back before the lab goes. */
const STOP_MS = 5000;

const say = sayOn("soak");
const print = (line: string): void => void process.stdout.write(`${line}\n`);

function whole(least: number, most: number) {
  return (text: string): number => {
    const value = Number(text);
    if (!Number.isInteger(value) || value < least || value > most)
      throw new InvalidArgumentError(`a whole number from ${least} to ${most}`);
    return value;
  };
}

async function soak(flags: Flags, signal: AbortSignal): Promise<number> {
  const { cycles, seed, vms: count, ranks, name } = flags;
  print(`seed ${seed}`);
  const shape: LabShape = { name, vms: count, hosts: count + FREE_HOSTS, ranksPerVm: ranks };
  const undertaker = startUndertaker(name);
  try {
    const bed = await bootTestbed(shape, say, signal);
    try {
      const plan = planSoak({ seed, cycles, vms: bed.vms, freeHosts: FREE_HOSTS });
      const work = runSoak(labWorld(bed), { seed, plan, print, signal });
      work.catch(() => undefined);
      const result = await Promise.race([work, stopped(signal)]);
      for (const line of summaryLines(result)) print(line);
      return isGood(result) ? ExitCode.done : ExitCode.internal;
    } finally {
      await endRuns(STOP_MS);
      await bed.controller.close();
      await labDown({ name, say });
    }
  } finally {
    dismiss(undertaker);
  }
}

/** Rejects when the soak is told to stop, whatever it waits for. */
async function stopped(signal: AbortSignal): Promise<never> {
  for (;;) await delay(2 ** 30, undefined, { signal, ref: false });
}

keepTalking();
const abort = new AbortController();
for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const)
  process.on(name, () => {
    if (!abort.signal.aborted) say("stopping; the lab is taken down");
    const exit = name === "SIGINT" ? "interrupted" : "terminated";
    abort.abort(new SymvirtError(exit, "the soak was interrupted"));
  });

const program = new Command("soak")
  .exitOverride()
  .description("moves VMs at random under jobs that check their data, in a lab of its own")
  .option("--cycles <n>", "migrations in all", whole(1, 100_000), 100)
  .option("--seed <s>", "decides everything that is random", whole(0, 2 ** 32 - 1), freshSeed())
  .option("--vms <n>", "VMs", whole(2, 8), 2)
  .option("--ranks <n>", "ranks per VM", whole(1, 8), 1)
  .option("--name <name>", "name of the lab", "soak")
  .action(async (flags: Flags) => {
    process.exitCode = await soak(flags, abort.signal);
  });

try {
  await program.parseAsync();
} catch (error) {
  if (error instanceof CommanderError) process.exitCode = error.exitCode === 0 ? 0 : ExitCode.usage;
  else {
    say(error instanceof Error ? error.message : String(error));
    if (error instanceof SymvirtError && error.hint !== undefined) say(`  ${error.hint}`);
    process.exitCode = error instanceof SymvirtError ? error.exitCode : ExitCode.internal;
  }
}
// What a stopped soak was waiting for in its guests would be waited for until its deadline.
if (abort.signal.aborted) process.exit();
