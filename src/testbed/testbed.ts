/** A lab, a controller on it, and what is asked of both again and again. */
import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Controller, type StatusReport } from "../index.js";
import {
  labDown,
  labExec,
  labStatus,
  labUp,
  labPaths,
  type OpenLab,
  openLab,
  packageRoot,
} from "../lab/index.js";
import { type CliResult, type CliRun, runCli, startCli } from "./command.js";
import { type Say, until } from "./progress.js";

export interface LabShape {
  name: string;
  vms: number;
  hosts: number;
  ranksPerVm: number;
}

const GUEST_COMMAND_MS = 120_000;
const QEMU_DEATH_MS = 20_000;

export class Testbed {
  readonly shape: LabShape;
  readonly lab: OpenLab;
  readonly controller: Controller;
  readonly say: Say;

  constructor(shape: LabShape, lab: OpenLab, controller: Controller, say: Say) {
    this.shape = shape;
    this.lab = lab;
    this.controller = controller;
    this.say = say;
  }

  get vms(): string[] {
    return Object.keys(this.lab.cluster.vms);
  }

  get hosts(): string[] {
    return Object.keys(this.lab.cluster.hosts);
  }

  get worldSize(): number {
    return this.vms.length * this.shape.ranksPerVm;
  }

  start(args: readonly string[], cluster = this.lab.path): CliRun {
    return startCli(cluster, args);
  }

  async cli(args: readonly string[], cluster = this.lab.path): Promise<CliResult> {
    return await runCli(cluster, args);
  }

  async status(): Promise<StatusReport> {
    return await this.controller.status();
  }

  async hostOf(vm: string): Promise<string> {
    const found = (await this.status()).vms.find((v) => v.vm === vm);
    return found?.host ?? "";
  }

  /** Hosts where no VM runs; at least one. */
  async freeHosts(): Promise<[string, ...string[]]> {
    const used = (await this.status()).vms.map((v) => v.host);
    const [first, ...others] = this.hosts.filter((h) => !used.includes(h));
    if (first === undefined) throw new Error(`no free host: VMs are on ${used.join(", ")}`);
    return [first, ...others];
  }

  async freeHost(): Promise<string> {
    return (await this.freeHosts())[0];
  }

  /** Hosts where a QEMU of the VM runs, by the process table. */
  async qemuHosts(vm: string): Promise<string[]> {
    return (await labStatus(this.lab)).vms.find((v) => v.vm === vm)?.hosts ?? [];
  }

  /** Process of a VM's QEMU; throws when there is none. */
  qemuPid(vm: string, host: string): number {
    const file = join(this.lab.cluster.hosts[host]?.runtime ?? "", `${vm}.pid`);
    return Number(readFileSync(file, "utf8").trim());
  }

  /** As hosts do that lose their power: every QEMU dies and nobody is told. Resolves when all are dead. */
  async killVms(signal?: AbortSignal): Promise<void> {
    for (const vm of this.vms)
      for (const host of await this.qemuHosts(vm)) process.kill(this.qemuPid(vm, host), "SIGKILL");
    const dead = async () => {
      const hosts = await Promise.all(this.vms.map((vm) => this.qemuHosts(vm)));
      return hosts.flat().length === 0 ? true : undefined;
    };
    await until("the death of every QEMU", QEMU_DEATH_MS, dead, signal === undefined ? {} : { signal });
  }

  /** Runs a shell line in a guest; it must succeed. Returns stdout. */
  async guest(vm: string, line: string): Promise<string> {
    const signal = AbortSignal.timeout(GUEST_COMMAND_MS);
    const result = await labExec(this.lab, vm, ["sh", "-c", line], { signal });
    if (result.code !== 0) throw new Error(`"${line}" in ${vm} gave ${result.code}: ${result.stderr}`);
    return result.stdout;
  }

  /** Says what the agents and, through them, the ranks have warned of: a lab that goes takes its logs with it. */
  async sayWarnings(): Promise<void> {
    for (const vm of this.vms) {
      const lines = await this.guest(vm, warnings).catch((e: unknown) => String(e));
      for (const line of lines.split("\n")) if (line !== "") this.say(`${vm}: ${line}`);
    }
  }

  /** Ends whatever jobs run in the guests. */
  async killJobs(): Promise<void> {
    for (const vm of this.vms)
      await this.guest(vm, killJobs).catch((e: unknown) => this.say(`${vm}: ${String(e)}`));
  }
}

/** pino's levels: 40 is a warning. */
const warnings = `grep -E '"level":[456]0' /var/log/symvirt-agent.log | tail -n 20; true`;

/** Ends jobs by pid: whatever runs from the workloads' folder, and their launchers. */
const killJobs = `
for p in /proc/[0-9]*; do
  case "$(readlink $p/exe)" in
    /opt/symvirt/build/workloads/*|/usr/bin/orted|/usr/bin/orterun|/usr/bin/mpirun*) kill -9 \${p#/proc/} ;;
  esac
done
rm -f /tmp/testbed-*
true`;

/** Opens a lab that is up. */
export async function openTestbed(shape: LabShape, say: Say): Promise<Testbed> {
  const { cluster } = labPaths(shape.name);
  return new Testbed(shape, openLab(cluster), await Controller.open(cluster), say);
}

/** Boots a lab of this shape and opens it. What was made is taken down if it fails. */
export async function bootTestbed(shape: LabShape, say: Say, signal?: AbortSignal): Promise<Testbed> {
  const { name, vms, hosts, ranksPerVm } = shape;
  await labUp({ name, vms, hosts, ranks: ranksPerVm, say, ...(signal === undefined ? {} : { signal }) });
  try {
    return await openTestbed(shape, say);
  } catch (failure) {
    await labDown({ name, say });
    throw failure;
  }
}

/**
 * Outlives this process and takes the lab down when it ends in whatever way: waits for the end of its stdin,
 * which is ours. In a session of its own, so Ctrl-C does not reach it. `dismiss` when there is no lab of ours (any more).
 */
export function startUndertaker(name: string): ChildProcess {
  const script = `cat >/dev/null; exec "$0" "$1" lab down --name "$2" >/dev/null 2>&1`;
  const child = spawn("sh", ["-c", script, process.execPath, join(packageRoot, "bin/symvirt"), name], {
    detached: true,
    stdio: ["pipe", "ignore", "ignore"],
  });
  child.unref();
  return child;
}

/** The undertaker ends and takes nothing down: a lab of that name is somebody else's, or gone. */
export function dismiss(undertaker: ChildProcess): void {
  undertaker.kill("SIGKILL");
  undertaker.stdin?.end();
}
