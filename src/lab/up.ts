/** `lab up`: image, layer, network, VMs, and the wait until they can be used. */
import { constants } from "node:fs";
import { copyFile, link, mkdir, rename, rm, writeFile } from "node:fs/promises";
import { dirname } from "node:path";
import type { Card, Cluster } from "../controller/cluster-file.js";
import { SymvirtError } from "../errors.js";
import { launchQemu, vmPaths } from "../vmm/qemu/launch.js";
import { type Accelerator, probeAccelerator } from "./accelerator.js";
import { switchNamespace, vmName } from "./addresses.js";
import { labDown } from "./down.js";
import { guestImage, imageFiles } from "./image.js";
import { clusterText, diskFiles, labCluster, type OpenLab, openLab } from "./lab-cluster.js";
import { hasAddon, layerFile, symvirtLayer } from "./layer.js";
import { createNetwork } from "./network.js";
import { cacheRoot, labPaths } from "./paths.js";
import { preflight } from "./preflight.js";
import { run } from "./process.js";
import { bootFailure, waitForHello, waitForSsh } from "./ready.js";

export interface LabUpOptions {
  name?: string;
  vms?: number;
  hosts?: number;
  /** Ranks per VM that the lab's workloads start. */
  ranks?: number;
  memoryMiB?: number;
  cpus?: number;
  /** Names of hosts that offer no card. */
  cardless?: readonly string[];
  /** Progress, one line each. */
  say?: (line: string) => void;
  signal?: AbortSignal;
}

export interface LabUpResult {
  lab: OpenLab;
  accelerator: Accelerator;
  imageBuilt: boolean;
  layerBuilt: boolean;
  /** False when the guests have no agent, because the addon has not been built. */
  agents: boolean;
  /** Milliseconds of each phase, in order. */
  phases: { phase: string; ms: number }[];
}

/** From the start of QEMU to ssh; and then to the agent's hello. Under TCG on two cores. */
const BOOT_DEADLINE_MS = 180_000;
const HELLO_DEADLINE_MS = 60_000;

/**
 * Makes a lab and resolves when its guests answer. On failure or abort everything it made is taken
 * down again, except the cached image and layer.
 */
export async function labUp(options: LabUpOptions = {}): Promise<LabUpResult> {
  const { name = "lab", vms = 2, hosts = vms + 1, cardless = [], say = () => undefined } = options;
  const signal = options.signal ?? new AbortController().signal;
  const paths = labPaths(name);
  const phases: LabUpResult["phases"] = [];
  const timed = async <T>(phase: string, step: () => Promise<T>): Promise<T> => {
    signal.throwIfAborted();
    const started = performance.now();
    const value = await step();
    const ms = Math.round(performance.now() - started);
    phases.push({ phase, ms });
    say(`${phase}: ${(ms / 1000).toFixed(1)} s`);
    return value;
  };

  await preflight({ lab: name, vms, hosts, cardless, paths, cache: cacheRoot() });
  const accelerator = await timed("accelerator", () => probeAccelerator());
  say(
    `accelerator in use: ${accelerator}${accelerator === "tcg" ? " (no usable KVM: guests are emulated)" : ""}`,
  );
  const image = await timed("image", () => guestImage(say, signal));
  const layer = await timed("layer", () => symvirtLayer(say));

  await claim(name, paths.run);
  try {
    const cluster = labCluster({
      ...{ lab: name, vms, hosts, cardless, accelerator, paths },
      ...{ memoryMiB: options.memoryMiB ?? 1024, cpus: options.cpus ?? 1, ranks: options.ranks ?? 1 },
      ...{ image: image.path, layer: layer.path },
    });
    await timed("disks", () => makeDisks(paths.disks, image.path, layer.path, Object.keys(cluster.vms)));
    await timed("network", () => createNetwork({ lab: name, hosts, vms }, signal));
    await mkdir(paths.state, { recursive: true, mode: 0o700 });
    for (const host of Object.values(cluster.hosts)) await mkdir(host.runtime, { recursive: true });
    await writeFile(`${paths.cluster}.new`, clusterText(cluster), { mode: 0o600 });
    await rename(`${paths.cluster}.new`, paths.cluster);
    const lab = openLab(paths.cluster);
    const agents = await bootAll(lab, { signal, say, timed });
    say(`lab "${name}" is up: ${vms} VMs on ${hosts} hosts; reach them by: symvirt lab ssh ${vmName(1)}`);
    return { lab, accelerator, imageBuilt: image.built, layerBuilt: layer.built, agents, phases };
  } catch (failure) {
    say(`lab "${name}" did not come up; taking it down (namespace ${switchNamespace(name)} and its peers)`);
    await labDown({ name });
    throw failure;
  }
}

/** Makes the lab's run folder; of two `lab up` at once only one can. */
async function claim(name: string, run: string): Promise<void> {
  await mkdir(dirname(run), { recursive: true });
  try {
    await mkdir(run, { mode: 0o700 });
  } catch (cause) {
    throw new SymvirtError("refused", `There is a lab "${name}" already (${run} exists)`, {
      cause,
      hint: `symvirt lab down${name === "lab" ? "" : ` --name ${name}`}`,
    });
  }
}

/** Hard links (copies over file systems) to image and layer, so pruning the cache hurts no lab; and an overlay a VM. */
async function makeDisks(disks: string, image: string, layer: string, vms: readonly string[]): Promise<void> {
  const files = diskFiles(disks);
  const from = imageFiles(image);
  // Left by a lab that went with its machine: links to what is in the cache, not to be written through.
  await rm(disks, { recursive: true, force: true });
  await mkdir(disks, { recursive: true, mode: 0o700 });
  const pairs = [
    [from.root, files.root],
    [from.kernel, files.kernel],
    [from.initrd, files.initrd],
    [from.sshKey, files.sshKey],
    [layerFile(layer), files.layer],
  ] as const;
  for (const [source, target] of pairs) await linkOrCopy(source, target);
  for (const vm of vms)
    await run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", files.root, "-F", "raw", files.overlay(vm)]);
}

async function linkOrCopy(source: string, target: string): Promise<void> {
  try {
    await link(source, target);
  } catch (error) {
    const { code = "" } = error as NodeJS.ErrnoException;
    if (!["EXDEV", "EPERM", "EMLINK", "ENOTSUP"].includes(code)) throw error;
    await copyFile(source, target, constants.COPYFILE_EXCL);
  }
}

/** Cards a VM starts with, by tag. */
export function initialCards(cluster: Cluster, vm: string): Record<string, Card> {
  const cards: Record<string, Card> = {};
  const entry = cluster.vms[vm];
  for (const [tag, slot] of Object.entries(entry?.cards ?? {})) {
    const card = slot.card === undefined ? undefined : cluster.hosts[entry?.host ?? ""]?.cards[slot.card];
    if (card !== undefined) cards[tag] = card;
  }
  return cards;
}

interface BootTools {
  signal: AbortSignal;
  say: (line: string) => void;
  timed: <T>(phase: string, step: () => Promise<T>) => Promise<T>;
}

async function bootAll(lab: OpenLab, { signal, say, timed }: BootTools): Promise<boolean> {
  const { cluster } = lab;
  const vms = Object.entries(cluster.vms).map(([vm, { host }]) => {
    const paths = vmPaths(cluster, vm, host);
    return { vm, host, channel: paths.channel, serial: `${paths.runtime}/${vm}.serial` };
  });
  await timed("start QEMU", () =>
    Promise.all(
      vms.map(({ vm, host }) =>
        launchQemu({ cluster, vm, host, incoming: false, cards: initialCards(cluster, vm), signal }),
      ),
    ),
  );
  const started = performance.now();
  const eachVm = (
    what: string,
    deadlineMs: number,
    wait: (vm: (typeof vms)[number], until: AbortSignal) => Promise<void>,
  ): Promise<unknown> =>
    within(deadlineMs, signal, (until) =>
      Promise.all(
        vms.map(async (vm) => {
          await wait(vm, until).catch(async (cause: unknown) => {
            signal.throwIfAborted();
            throw await bootFailure(vm.vm, `no ${what} within ${deadlineMs / 1000} s`, vm.serial, cause);
          });
          say(`  ${vm.vm}: ${what} ${((performance.now() - started) / 1000).toFixed(1)} s after power-on`);
        }),
      ),
    );
  await timed("boot to ssh", () =>
    eachVm("ssh", BOOT_DEADLINE_MS, ({ vm, serial }, until) => waitForSsh(lab, vm, serial, until)),
  );
  if (!hasAddon()) {
    say("note: the addon is not built (npm run build), so the guests have no agent");
    return false;
  }
  await timed("agent hello", () =>
    eachVm("agent hello", HELLO_DEADLINE_MS, ({ channel }, until) => waitForHello(channel, until)),
  );
  return true;
}

/**
 * Runs `body` with a signal that aborts with `signal` or after `ms`. (AbortSignal.any over an
 * AbortSignal.timeout that nobody else holds may never fire in Node 20: the timeout is collected.)
 */
async function within<T>(
  ms: number,
  signal: AbortSignal,
  body: (until: AbortSignal) => Promise<T>,
): Promise<T> {
  const either = new AbortController();
  const forward = (): void => either.abort(signal.reason);
  const timer = setTimeout(() => either.abort(new Error(`${ms} ms have passed`)), ms);
  signal.addEventListener("abort", forward, { once: true });
  if (signal.aborted) forward();
  try {
    return await body(either.signal);
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", forward);
  }
}
