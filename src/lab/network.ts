/**
 * Hosts as network namespaces. Each has a management and a fabric bridge, joined by veth pairs to
 * the same two bridges of the switch namespace. Nothing is made in the machine's own namespace.
 */
import {
  fabricTap,
  hostManagementAddress,
  hostName,
  hostNamespace,
  isNamespaceOf,
  managementTap,
  SWITCH_ADDRESS,
  switchNamespace,
  vmName,
} from "./addresses.js";
import { run, runForResult } from "./process.js";

export interface NetworkPlan {
  lab: string;
  hosts: number;
  vms: number;
}

const NETWORKS = ["m", "f"] as const;
/** No bridge or tap name may begin with a keyword of ip(8), such as "brd". */
const bridge = (network: "m" | "f"): string => `sv-${network}`;

function bridgeLines(network: "m" | "f"): string[] {
  const name = bridge(network);
  return [`link add ${name} type bridge mcast_snooping 0 stp_state 0 forward_delay 0`, `link set ${name} up`];
}

/** Lines for `ip -batch` in each namespace, in the order they must be run; pure. */
export function networkBatches(plan: NetworkPlan): { namespace: string; lines: string[] }[] {
  const hosts = Array.from({ length: plan.hosts }, (_, i) => hostName(i + 1));
  const sw = { namespace: switchNamespace(plan.lab), lines: ["link set lo up"] };
  for (const network of NETWORKS) {
    sw.lines.push(...bridgeLines(network));
    for (const host of hosts) {
      const peer = `netns ${hostNamespace(plan.lab, host)}`;
      sw.lines.push(
        `link add sv-${host}-${network} type veth peer name sv-up-${network} ${peer}`,
        `link set sv-${host}-${network} master ${bridge(network)} up`,
      );
    }
  }
  sw.lines.push(`addr add ${SWITCH_ADDRESS}/24 dev ${bridge("m")}`);
  const perHost = hosts.map((host, index) => {
    const lines = ["link set lo up"];
    for (const network of NETWORKS) {
      lines.push(...bridgeLines(network), `link set sv-up-${network} master ${bridge(network)} up`);
      for (let n = 1; n <= plan.vms; n++) {
        const tap = network === "m" ? managementTap(vmName(n)) : fabricTap(vmName(n));
        // A 2 MB RDMA read answers with 2000 packets at once: the default queue of 1000 drops them,
        // and openib then waits 4 s for each retransmission.
        lines.push(
          `tuntap add ${tap} mode tap`,
          `link set ${tap} txqueuelen 20000`,
          `link set ${tap} master ${bridge(network)} up`,
        );
      }
    }
    lines.push(`addr add ${hostManagementAddress(index + 1)}/24 dev ${bridge("m")}`);
    return { namespace: hostNamespace(plan.lab, host), lines };
  });
  return [sw, ...perHost];
}

/** Makes the lab's namespaces and everything in them. On failure the caller takes the lab down. */
export async function createNetwork(plan: NetworkPlan, signal?: AbortSignal): Promise<void> {
  const options = signal === undefined ? {} : { signal };
  const batches = networkBatches(plan);
  const add = batches.map(({ namespace }) => `netns add ${namespace}\n`).join("");
  await run(["ip", "-batch", "-"], { ...options, input: add });
  for (const { namespace, lines } of batches)
    await run(["ip", "-n", namespace, "-batch", "-"], { ...options, input: `${lines.join("\n")}\n` });
}

/** Names of this lab's namespaces that exist now. */
export async function listNamespaces(lab: string): Promise<string[]> {
  const listed = await run(["ip", "netns", "list"]);
  return listed
    .split("\n")
    .map((line) => line.split(" ")[0] ?? "")
    .filter((name) => isNamespaceOf(lab, name));
}

/** Process ids that live in a namespace. */
export async function namespacePids(namespace: string): Promise<number[]> {
  const result = await runForResult(["ip", "netns", "pids", namespace]);
  if (result.code !== 0) return [];
  return result.stdout.split(/\s+/).filter(Boolean).map(Number);
}

/** Deletes the lab's namespaces, and with them their bridges, veths and taps; idempotent. */
export async function deleteNetwork(lab: string): Promise<string[]> {
  const namespaces = await listNamespaces(lab);
  for (const namespace of namespaces) await run(["ip", "netns", "delete", namespace]);
  return namespaces;
}
