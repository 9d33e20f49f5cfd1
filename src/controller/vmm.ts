/** What the controller needs of the machines: drivers for the VMs, and processes started and ended on hosts. */
import { SymvirtError } from "../errors.js";
import type { VmDriver } from "../vmm/driver.js";
import { openQemuDriver } from "../vmm/qemu/driver.js";
import { freeMemory } from "../vmm/qemu/free-memory.js";
import { endQemu, launchArguments, launchQemu, vmPaths } from "../vmm/qemu/launch.js";
import { killVms, pidsOf, presentVms } from "../vmm/qemu/presence.js";
import { type HostResult, quote, runOnHost } from "../vmm/qemu/run-on-host.js";
import type { Cluster } from "./cluster-file.js";

export interface Vmm {
  /** A driver for a VM on a host; connects at first use, the caller closes it. */
  driver(vm: string, host: string): VmDriver;
  /** Starts a destination: the VM's command line without cards, waiting for a migration. */
  launchIncoming(vm: string, host: string, signal: AbortSignal): Promise<void>;
  /** Ends the VM's process on a host; idempotent. */
  end(vm: string, host: string, signal: AbortSignal): Promise<void>;
  /** Whether the host can take the VM; rejects with what is missing. Changes nothing but an empty runtime folder. */
  checkHost(vm: string, host: string, machine: string, signal: AbortSignal): Promise<void>;
  /** The VM's command on a host, placeholders replaced, without cards. */
  command(vm: string, host: string): string[];
  /** Pids of processes on the host that are a VMM of this VM, by the host's process table. */
  findProcesses(vm: string, host: string, signal: AbortSignal): Promise<number[]>;
  /** Runs a script by a POSIX shell of the host. */
  run(host: string, script: string, signal: AbortSignal): Promise<HostResult>;
  /** Bytes of memory the host has for one more VM. */
  freeMemory(host: string, signal: AbortSignal): Promise<number>;
  /** For each VM whether its process is on the host; rejects when the host cannot be asked. */
  presence(host: string, vms: readonly string[], signal: AbortSignal): Promise<Map<string, boolean>>;
  /** Kills these VMs on the host; resolves when none of their processes is there, rejects when that is not certain. */
  kill(host: string, vms: readonly string[], signal: AbortSignal): Promise<void>;
}

/** The QEMU hosts of a cluster file. */
export function qemuVmm(cluster: Cluster): Vmm {
  return {
    driver: (vm, host) => openQemuDriver(cluster, vm, host),
    launchIncoming: (vm, host, signal) => launchQemu({ cluster, vm, host, incoming: true, signal }),
    end: (vm, host, signal) => endQemu(cluster, vm, host, { signal }),
    checkHost: (vm, host, machine, signal) => checkQemuHost({ cluster, vm, host, machine, signal }),
    command: (vm, host) => launchArguments({ cluster, vm, host, incoming: false }),
    findProcesses: (vm, host, signal) => pidsOf(cluster, host, vm, signal),
    run: (host, script, signal) => runOnHost(cluster.hosts[host]?.run ?? [], script, signal),
    presence: (host, vms, signal) => presentVms(cluster, host, vms, signal),
    kill: (host, vms, signal) => killVms(cluster, host, vms, signal),
    freeMemory: (host, signal) => freeMemory(host, cluster.hosts[host]?.run ?? [], signal),
  };
}

interface HostCheck {
  cluster: Cluster;
  vm: string;
  host: string;
  /** Machine type the VM has now. */
  machine: string;
  signal: AbortSignal;
}

async function checkQemuHost({ cluster, vm, host, machine, signal }: HostCheck): Promise<void> {
  const { runtime, pidfile } = vmPaths(cluster, vm, host);
  const binary = cluster.vms[vm]?.command[0] ?? "";
  // Unknown while the VM's own VMM does not answer: that is told by itself.
  const machineCheck = `machines=$(${quote(binary)} -machine help 2>/dev/null) && ! printf '%s\\n' "$machines" | grep -q -- ${quote(`^${machine} `)} && { echo "no-machine"; exit 0; }`;
  const script = `
command -v ${quote(binary)} >/dev/null 2>&1 || { echo "no-binary"; exit 0; }
mkdir -p ${quote(runtime)} 2>/dev/null && [ -w ${quote(runtime)} ] || { echo "no-runtime"; exit 0; }
pid=$(cat ${quote(pidfile)} 2>/dev/null) && [ -n "$pid" ] && tr '\\0' '\\n' 2>/dev/null <"/proc/$pid/cmdline" | grep -qxF -- ${quote(pidfile)} && { echo "vm-there $pid"; exit 0; }
${machine === "" ? "" : machineCheck}
echo ok
`;
  const result = await runOnHost(cluster.hosts[host]?.run ?? [], script, signal);
  const answer = result.stdout.trim();
  if (answer === "ok") return;
  if (answer === "no-binary")
    throw new SymvirtError("refused", `host ${host} has no "${binary}"`, { hint: `install QEMU on ${host}` });
  if (answer === "no-runtime")
    throw new SymvirtError("refused", `the folder ${runtime} of host ${host} cannot be written`, {
      hint: "check hosts.*.runtime in the cluster file and its owner",
    });
  if (answer === "no-machine")
    throw new SymvirtError("refused", `QEMU on host ${host} does not know machine type ${machine} of ${vm}`, {
      hint: "install the same or a newer QEMU there",
    });
  if (answer.startsWith("vm-there"))
    throw new SymvirtError(
      "refused",
      `host ${host} already runs a process of ${vm} (pid ${answer.slice(9)})`,
      {
        hint: "run `symvirt abort` if a cycle was interrupted, else end that process",
      },
    );
  const words = result.stderr.trim().split("\n").pop() ?? "";
  throw new SymvirtError(
    "unreachable",
    `host ${host} does not run a command (status ${result.code}): ${words}`,
    {
      hint: `check hosts.${host}.run in the cluster file`,
    },
  );
}
