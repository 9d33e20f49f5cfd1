/** How long `symvirt abort` may look for what an interrupted cycle left behind, and undo what it holds. */
import { SymvirtError } from "../errors.js";
import { after, anySignal } from "../signals.js";
import type { Cluster } from "./cluster-file.js";

/** As long as a migration may take: a capture that is let go of is first read to its end. */
export function recoveryLimit(cluster: Cluster, signal: AbortSignal): AbortSignal {
  const { migrate } = cluster.deadlines;
  const late = new SymvirtError(
    "deadline",
    `what the interrupted cycle left could not be found or let go within ${migrate / 1000} s (deadlines.migrate)`,
    { hint: "see in `symvirt status` which VM does not answer; then run `symvirt abort` again" },
  );
  return anySignal([signal, after(migrate, late)]);
}
