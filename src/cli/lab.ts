/** `symvirt lab …`: a cluster of QEMU guests on this machine. */
import { Command, InvalidArgumentError } from "commander";
import { defaultClusterPath } from "../controller/cluster-file.js";
import { ExitCode, SymvirtError } from "../errors.js";
import {
  labCopy,
  labDown,
  labExecInherited,
  labPaths,
  labStatus,
  labUp,
  type OpenLab,
  openLab,
} from "../lab/index.js";
import { catchingSignals } from "./shared/stop.js";
import { say } from "./shared/talk.js";

/** Parses a whole number of at least 1. */
function count(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1) throw new InvalidArgumentError("a whole number of at least 1");
  return value;
}

const list = (text: string): string[] => text.split(",").filter(Boolean);

/** The lab of `-c FILE`, else of `--name`, else the one any verb would take. */
function open(given: string | undefined, name?: string): OpenLab {
  return openLab(given ?? (name === undefined ? defaultClusterPath() : labPaths(name).cluster));
}

/** Runs a verb with signals turned into an abort; what it resolves with is the exit code. */
async function guarded(body: (signal: AbortSignal) => Promise<number>, reassure?: string): Promise<void> {
  process.exitCode = await catchingSignals(({ signal }) => body(signal), reassure ?? "stopping");
}

interface UpFlags {
  vms: number;
  hosts?: number;
  ranks: number;
  memory: number;
  cpus: number;
  name: string;
  cardless: string[];
  json?: boolean;
}

/** The `lab` verb with its own verbs. */
export function labCommand(): Command {
  const lab = new Command("lab").description(
    "a cluster of QEMU guests on this machine, for trying and testing",
  );
  lab.enablePositionalOptions();
  const cluster = [
    "-c, --cluster <file>",
    "cluster file of the lab (default: $SYMVIRT_CLUSTER, ./cluster.yaml, the lab named lab)",
  ] as const;
  const named = ["--name <name>", "name of the lab"] as const;

  lab
    .command("up")
    .description("make the guest image if need be, start hosts and VMs, wait until they answer")
    .option("--vms <n>", "VMs", count, 2)
    .option("--hosts <n>", "hosts; those without a VM are spares (default: one more than VMs)", count)
    .option("--ranks <n>", "ranks per VM that workloads start", count, 1)
    .option("--memory <MiB>", "memory of a VM", count, 1024)
    .option("--cpus <n>", "virtual CPUs of a VM", count, 1)
    .option(...named, "lab")
    .option("--cardless <hosts>", "hosts that offer no card, joined by commas", list, [])
    .option("--json", "print a result object on stdout")
    .action((flags: UpFlags) =>
      guarded(async (signal) => {
        const { json, memory, ...rest } = flags;
        const result = await labUp({ ...rest, memoryMiB: memory, say, signal });
        const { lab: made, ...facts } = result;
        const answer = { schemaVersion: 1, ok: true, cluster: made.path, ...facts };
        process.stdout.write(json === true ? `${JSON.stringify(answer)}\n` : `${made.path}\n`);
        return ExitCode.done;
      }, "stopping; taking down what was made"),
    );

  lab
    .command("status")
    .description("which VM runs where")
    .option(...cluster)
    .option(...named)
    .option("--json", "print it as JSON")
    .action((flags: { cluster?: string; name?: string; json?: boolean }) =>
      guarded(async () => {
        const status = await labStatus(open(flags.cluster, flags.name));
        if (flags.json === true) process.stdout.write(`${JSON.stringify(status)}\n`);
        else {
          const lines = status.vms.map(
            ({ vm, address, hosts, serial }) =>
              `${vm}  ${address}  ${hosts.length === 0 ? "not running" : `on ${hosts.join(" and ")}`}  ${serial.join(" ")}`,
          );
          lines.push(`spare hosts: ${status.spares.join(", ") || "none"}`, `cluster file: ${status.cluster}`);
          process.stdout.write(`${lines.join("\n")}\n`);
        }
        return ExitCode.done;
      }),
    );

  lab
    .command("ssh")
    .description("open a shell in a VM")
    .argument("<vm>")
    .option(...cluster)
    .option(...named)
    .action((vm: string, flags: { cluster?: string; name?: string }) =>
      guarded((signal) => labExecInherited(open(flags.cluster, flags.name), vm, [], signal)),
    );

  lab
    .command("exec")
    .description("run a command in a VM: its input, output and exit code are yours")
    .argument("<vm>")
    .argument("<command...>")
    .option(...cluster)
    .option(...named)
    .passThroughOptions()
    .action((vm: string, command: string[], flags: { cluster?: string; name?: string }) =>
      guarded((signal) => {
        // "exec vm1 -- cmd": commander leaves the dashes that come after the first argument.
        const argv = command[0] === "--" ? command.slice(1) : command;
        if (argv.length === 0) throw new SymvirtError("usage", "Nothing to run was given");
        return labExecInherited(open(flags.cluster, flags.name), vm, argv, signal);
      }),
    );

  lab
    .command("cp")
    .description("copy files into a VM or out of it; one side is VM:PATH")
    .argument("<from>")
    .argument("<to>")
    .option(...cluster)
    .option(...named)
    .action((from: string, to: string, flags: { cluster?: string; name?: string }) =>
      guarded(async (signal) => {
        await labCopy(open(flags.cluster, flags.name), from, to, signal);
        return ExitCode.done;
      }),
    );

  lab
    .command("down")
    .description("end the lab; nothing of it stays but the cached image")
    .option(...named, "lab")
    .action((flags: { name: string }) =>
      guarded(async () => {
        await labDown({ name: flags.name, say });
        return ExitCode.done;
      }),
    );
  return lab;
}
