/** The demo's stage for real: a lab of its own, and a controller on it. */
import { copyFile, mkdir, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import type { Strategy } from "../controller/strategy.js";
import { SymvirtError } from "../errors.js";
import {
  labCopy,
  labDown,
  labExec,
  labUp,
  MANAGEMENT_SUBNET,
  type OpenLab,
  vmAddress,
} from "../lab/index.js";
import { openController } from "./controller-port.js";
import type { Stage } from "./stage.js";

export interface LabStageOptions {
  /** Name of the lab. */
  name: string;
  vms: number;
  ranksPerVm: number;
  /** Leave the lab up at the end. */
  keep: boolean;
  strategy: Strategy;
  say: (line: string) => void;
  signal: AbortSignal;
}

/** Where a program of the user's goes in the guests. */
const programFolder = "/root/demo-job";
const collectDeadlineMs = 10_000;

export interface LabStage extends Stage {
  /** Puts the guests' logs into a folder, for whoever must find out why the demo failed. */
  collectLogs(folder: string): Promise<void>;
}

/** Runs a command in a guest that must succeed. */
async function must(lab: OpenLab, vm: string, argv: readonly string[], signal: AbortSignal): Promise<void> {
  const { code, stderr } = await labExec(lab, vm, argv, { signal });
  if (code !== 0)
    throw new SymvirtError("internal", `"${argv.join(" ")}" in ${vm} failed with ${code}: ${stderr.trim()}`);
}

async function collect(lab: OpenLab, folder: string): Promise<void> {
  await mkdir(folder, { recursive: true });
  for (const vm of Object.keys(lab.cluster.vms)) {
    for (const [name, argv] of [
      ["agent", ["cat", "/var/log/symvirt-agent.log"]],
      ["kernel", ["dmesg"]],
    ] as const) {
      // A guest that does not answer any more is what the logs may be wanted for: its own absence is noted.
      const text = await labExec(lab, vm, argv, { signal: AbortSignal.timeout(collectDeadlineMs) }).then(
        (result) => result.stdout + result.stderr,
        (error: unknown) => `not reached: ${String(error)}\n`,
      );
      await writeFile(join(folder, `${vm}.${name}.log`), text);
    }
    // Only hosts that had this VM have its console.
    for (const [host, { runtime }] of Object.entries(lab.cluster.hosts))
      await copyFile(join(runtime, `${vm}.serial`), join(folder, `${vm}.${host}.console.log`)).catch(
        () => undefined,
      );
  }
}

/** Starts a lab with one spare host and opens a controller on it. What it started is taken down if it fails. */
export async function openLabStage(options: LabStageOptions): Promise<LabStage> {
  const { name, vms: count, ranksPerVm, say, signal } = options;
  const { lab, accelerator } = await labUp({
    name,
    vms: count,
    hosts: count + 1,
    ranks: ranksPerVm,
    say,
    signal,
  });
  let closing: Promise<void> | undefined;
  const controllers: { close(): Promise<void> }[] = [];
  const close = async () => {
    for (const controller of controllers) await controller.close();
    if (options.keep)
      say(`the lab stays up: symvirt lab ssh vm1 --name ${name}, symvirt lab down --name ${name}`);
    else await labDown({ name, say });
  };
  try {
    const controller = await openController(lab.path, options.strategy, signal);
    controllers.push(controller);
    const vms = Object.keys(lab.cluster.vms);
    const used = new Set(Object.values(lab.cluster.vms).map((vm) => vm.host));
    const spare = Object.keys(lab.cluster.hosts).find((host) => !used.has(host));
    const from = lab.cluster.vms[vms[0] ?? ""]?.host;
    if (spare === undefined || from === undefined)
      throw new SymvirtError("internal", "The lab has no spare host");
    return {
      ...{ accelerator, vms, from, spare, network: MANAGEMENT_SUBNET },
      workload: (program) => `/opt/symvirt/build/workloads/${program}`,
      async install(path) {
        const target = `${programFolder}/${basename(path)}`;
        for (const vm of vms) {
          await must(lab, vm, ["mkdir", "-p", programFolder], signal);
          await labCopy(lab, path, `${vm}:${target}`, signal);
        }
        return target;
      },
      async run(vm, argv, onLine) {
        const { code, signal: killed } = await labExec(lab, vm, argv, { signal, onLine });
        if (code === 255)
          say(`note: exit code 255 may be ssh's own: ${vm} (${vmAddress(lab, vm)}) was not reached`);
        if (code === null) throw new SymvirtError("internal", `ssh to ${vm} was ended by ${killed}`);
        return code;
      },
      ranks: () => controller.ranks(),
      migrate: (vm, to, told) => controller.migrate(vm, to, told),
      collectLogs: (folder) => collect(lab, folder),
      close: () => {
        closing ??= close();
        return closing;
      },
    };
  } catch (failure) {
    await close();
    throw failure;
  }
}
