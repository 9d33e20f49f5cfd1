/** `lab status`: which guests of a lab run where. */
import { readdirSync } from "node:fs";
import { vmPaths } from "../vmm/qemu/launch.js";
import { quote, runOnHost } from "../vmm/qemu/run-on-host.js";
import type { OpenLab } from "./lab-cluster.js";

export interface LabStatus {
  schemaVersion: 1;
  name: string;
  cluster: string;
  accelerator: string;
  vms: {
    vm: string;
    address: string;
    /** Hosts where a QEMU of this VM runs now; normally one. */
    hosts: string[];
    serial: string[];
  }[];
  /** Hosts where no VM runs. */
  spares: string[];
}

/** Looks for each VM's QEMU on every host, since a VM may have been moved. */
export async function labStatus({ cluster, lab, path }: OpenLab): Promise<LabStatus> {
  const running: { vm: string; host: string }[] = [];
  for (const [host, entry] of Object.entries(cluster.hosts)) {
    const there = new Set(safeList(entry.runtime));
    for (const vm of Object.keys(cluster.vms)) {
      const { pidfile } = vmPaths(cluster, vm, host);
      if (!there.has(`${vm}.pid`)) continue;
      const test = `pid=$(cat ${quote(pidfile)}) && tr '\\0' '\\n' <"/proc/$pid/cmdline" | grep -qxF -- ${quote(pidfile)}\n`;
      if ((await runOnHost(entry.run, test)).code === 0) running.push({ vm, host });
    }
  }
  return {
    schemaVersion: 1,
    name: lab.name,
    cluster: path,
    accelerator: lab.accelerator,
    vms: Object.entries(cluster.vms).map(([vm, entry]) => {
      const hosts = running.filter((one) => one.vm === vm).map((one) => one.host);
      return {
        vm,
        address: entry.address ?? "",
        hosts,
        serial: hosts.map((host) => `${cluster.hosts[host]?.runtime ?? ""}/${vm}.serial`),
      };
    }),
    spares: Object.keys(cluster.hosts).filter((host) => !running.some((one) => one.host === host)),
  };
}

function safeList(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    // A host whose folder is gone runs nothing.
    return [];
  }
}
