/** Before a VM is started from a checkpoint: proof, host by host, that it does not run any more. */
import { SymvirtError } from "../../errors.js";
import type { Findings } from "../findings.js";
import type { Fleet } from "../fleet.js";

/**
 * Asks every host for processes of the VMs; one that is found, and a host that does not answer, stand against the
 * restart. `gone`: hosts of which the operator vouches that they are off. Returns the hosts that answer.
 */
export async function fence(
  fleet: Fleet,
  vms: readonly string[],
  gone: readonly string[],
  findings: Findings,
  signal: AbortSignal,
): Promise<string[]> {
  const hosts = Object.keys(fleet.cluster.hosts).filter((host) => !gone.includes(host));
  const answering: string[] = [];
  await Promise.all(
    hosts.map(async (host) => {
      try {
        for (const vm of vms)
          for (const pid of await fleet.vmm.findProcesses(vm, host, signal))
            findings.refuse(
              `${vm} still runs on ${host} (pid ${pid})`,
              `end that process first, if ${vm} is to be set back to the checkpoint`,
            );
        answering.push(host);
      } catch (error) {
        if (!(error instanceof SymvirtError) && !signal.aborted) throw error;
        const why = error instanceof SymvirtError ? error.message : `host ${host} does not answer in time`;
        findings.refuse(
          `${why}: it may still run ${vms.join(" or ")}`,
          `when ${host} is off for good, say so with --gone ${host}`,
        );
      }
    }),
  );
  return hosts.filter((host) => answering.includes(host));
}
