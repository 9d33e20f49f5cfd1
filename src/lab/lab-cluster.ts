/** The cluster file of a lab. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { stringify } from "yaml";
import { z } from "zod";
import { type Card, type Cluster, clusterFile, loadCluster } from "../controller/cluster-file.js";
import { SymvirtError } from "../errors.js";
import type { Accelerator } from "./accelerator.js";
import {
  cardMac,
  cardName,
  hostManagementAddress,
  hostName,
  hostNamespace,
  switchNamespace,
  vmManagementAddress,
  vmName,
} from "./addresses.js";
import { CARD_BUS, CARD_TAG, vmCommand } from "./command.js";
import type { LabPaths } from "./paths.js";

/** The `lab` part of the cluster file: what the lab's own verbs need besides. */
export const labSection = z.strictObject({
  name: z.string(),
  /** Namespace from which guests are reached. */
  namespace: z.string(),
  sshKey: z.string(),
  disks: z.string(),
  accelerator: z.enum(["kvm", "tcg"]),
  /** Ranks per VM that workloads of this lab start by default. */
  ranks: z.number().int().min(1),
  image: z.string(),
  layer: z.string(),
});
export type LabSection = z.infer<typeof labSection>;

export interface LabShape {
  lab: string;
  vms: number;
  hosts: number;
  memoryMiB: number;
  cpus: number;
  ranks: number;
  /** Hosts that offer no card. */
  cardless: readonly string[];
  accelerator: Accelerator;
  paths: LabPaths;
  /** Cache folders the lab was made of (for people; the lab has links of its own). */
  image: string;
  layer: string;
}

/** Files of a lab's VMs in its disks folder. */
export const diskFiles = (disks: string) => ({
  root: join(disks, "root.img"),
  layer: join(disks, "layer.img"),
  kernel: join(disks, "kernel"),
  initrd: join(disks, "initrd"),
  sshKey: join(disks, "ssh-key"),
  overlay: (vm: string): string => join(disks, `${vm}.qcow2`),
});

/** Every host offers one card per VM, since every VM could come. */
function offeredCards(host: number, vms: number): Record<string, Card> {
  const cards: Record<string, Card> = {};
  for (let n = 1; n <= vms; n++) {
    const mac = cardMac(host, n);
    cards[cardName(host, n)] = { driver: "e1000e", options: { netdev: "fabric", mac }, identity: { mac } };
  }
  return cards;
}

/** The cluster file's content for a lab; pure. VM N starts on host N; the other hosts are spares. */
export function labCluster(shape: LabShape): Cluster {
  const files = diskFiles(shape.paths.disks);
  const hosts: Record<string, unknown> = {};
  for (let i = 1; i <= shape.hosts; i++) {
    const host = hostName(i);
    hosts[host] = {
      driver: "qemu",
      address: hostManagementAddress(i),
      run: ["ip", "netns", "exec", hostNamespace(shape.lab, host)],
      runtime: join(shape.paths.run, host),
      cards: shape.cardless.includes(host) ? {} : offeredCards(i, shape.vms),
    };
  }
  const vms: Record<string, unknown> = {};
  for (let n = 1; n <= shape.vms; n++) {
    const vm = vmName(n);
    const hasCard = !shape.cardless.includes(hostName(n));
    vms[vm] = {
      host: hostName(n),
      address: vmManagementAddress(n),
      command: vmCommand({
        vm,
        number: n,
        memoryMiB: shape.memoryMiB,
        cpus: shape.cpus,
        accelerator: shape.accelerator,
        kernel: files.kernel,
        initrd: files.initrd,
        disk: files.overlay(vm),
        layer: files.layer,
      }),
      cards: { [CARD_TAG]: { bus: CARD_BUS, ...(hasCard ? { card: cardName(n, 1) } : {}) } },
    };
  }
  const lab: LabSection = {
    name: shape.lab,
    namespace: switchNamespace(shape.lab),
    sshKey: files.sshKey,
    disks: shape.paths.disks,
    accelerator: shape.accelerator,
    ranks: shape.ranks,
    image: shape.image,
    layer: shape.layer,
  };
  // Emulated guests answer slowly when the machine is busy; a deadline only matters where something is wrong.
  const deadlines = { hello: "60s", park: "120s", resume: "120s", linkUp: "120s" };
  return clusterFile.parse({
    version: 1,
    name: shape.lab,
    state: shape.paths.state,
    hosts,
    vms,
    deadlines,
    // In the disks' folder, which goes with the lab.
    checkpoints: { path: join(shape.paths.disks, "checkpoints") },
    lab,
  });
}

/** YAML text of a lab's cluster file. */
export function clusterText(cluster: Cluster): string {
  return `# Written by "symvirt lab up"; "symvirt lab down" removes it.\n${stringify(cluster, { lineWidth: 0 })}`;
}

export interface OpenLab {
  cluster: Cluster;
  lab: LabSection;
  path: string;
}

/** Reads and checks the cluster file of a lab. Throws when there is none, it is wrong, or it is no lab's. */
export function openLab(path: string): OpenLab {
  if (!existsSync(path))
    throw new SymvirtError("refused", `There is no cluster file "${path}"`, {
      hint: "start a lab with: symvirt lab up",
    });
  const cluster = loadCluster(path);
  const lab = labSection.safeParse(cluster.lab);
  if (!lab.success)
    throw new SymvirtError("refused", `Cluster file "${path}" is not one of a lab`, {
      hint: "lab verbs work on labs made by: symvirt lab up",
    });
  return { cluster, lab: lab.data, path };
}
