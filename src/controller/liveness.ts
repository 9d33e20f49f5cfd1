/** Which VMs live: a look at every QEMU process, VMM and agent, for a policy that acts on deaths. */
import { SymvirtError } from "../errors.js";
import { anySignal } from "../signals.js";
import type { Cluster } from "./cluster-file.js";
import type { SessionOptions } from "./session.js";
import { lockHolders } from "./state/lock.js";
import { readStatus } from "./status.js";
import type { Vmm } from "./vmm.js";

export interface VmSight {
  vm: string;
  host: string;
  /** Of its VMM; "unknown": the host does not run a command. */
  process: "alive" | "gone" | "unknown";
  /** As the VMM says, "unknown" when it does not answer. */
  status: string;
  agent: boolean;
}

/** Undefined while a controller acts: what is seen of a VM on its way says nothing. */
export async function lookAtVms(
  cluster: Cluster,
  options: Pick<SessionOptions, "timing"> & { vmm: Vmm; signal: AbortSignal },
): Promise<VmSight[] | undefined> {
  const { vmm, signal } = options;
  const acts = () => lockHolders(cluster.state).some((holder) => holder.acting);
  if (acts()) return undefined;
  const status = await readStatus(cluster, { ...options, peers: false }).catch((error: unknown) => {
    if (error instanceof SymvirtError && error.exit === "refused") return undefined;
    throw error;
  });
  if (status === undefined || status.running !== null) return undefined;
  const limit = anySignal([signal, AbortSignal.timeout(cluster.deadlines.hello)]);
  const hosts = [...new Set(status.vms.map((v) => v.host))];
  const present = new Map(
    await Promise.all(
      hosts.map(async (host): Promise<[string, Map<string, boolean> | undefined]> => {
        const there = status.vms.filter((v) => v.host === host).map((v) => v.vm);
        return [host, await vmm.presence(host, there, limit).catch(() => undefined)];
      }),
    ),
  );
  signal.throwIfAborted();
  // One that has begun meanwhile may have moved a VM between the two questions.
  if (acts()) return undefined;
  return status.vms.map(({ vm, host, status: word, agent }) => {
    const found = present.get(host)?.get(vm);
    const process = found === undefined ? "unknown" : found ? "alive" : "gone";
    return { vm, host, process, status: word, agent: agent.answers };
  });
}
