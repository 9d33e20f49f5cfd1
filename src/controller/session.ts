/** What every controller run needs: the state folder, the lock, the journal, the connections. */
import { chmodSync, mkdirSync, statSync } from "node:fs";
import { SymvirtError } from "../errors.js";
import type { Cluster } from "./cluster-file.js";
import { Fleet, type LinkTiming } from "./fleet.js";
import { Journal } from "./state/journal.js";
import { acquireLock, type HeldLock } from "./state/lock.js";
import { Placement } from "./state/placement.js";
import { qemuVmm, type Vmm } from "./vmm.js";

export interface SessionOptions {
  /** "migrate vm1 to h3": what those read who find the lock taken. */
  what: string;
  /** Changes something; a reader's lock is waited for. */
  acting: boolean;
  vmm?: Vmm;
  timing?: LinkTiming;
}

export interface Session {
  cluster: Cluster;
  fleet: Fleet;
  journal: Journal;
  lock: HeldLock;
  close(): Promise<void>;
}

/** Makes the state folder (0700, ours). */
export function openStateFolder(folder: string): void {
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    const { uid, mode } = statSync(folder);
    if (uid !== process.getuid?.())
      throw new SymvirtError("usage", `the state folder ${folder} belongs to user ${uid}, not to us`, {
        hint: "run symvirt as its owner, or give another folder under state: in the cluster file",
      });
    if ((mode & 0o077) !== 0) chmodSync(folder, 0o700);
  } catch (cause) {
    if (cause instanceof SymvirtError) throw cause;
    const code = (cause as NodeJS.ErrnoException).code ?? String(cause);
    throw new SymvirtError("usage", `cannot use the state folder ${folder} (${code})`, {
      hint: "check state: in the cluster file",
      cause,
    });
  }
}

/** Takes the lock and opens everything; close() ends all of it. Throws "refused" when another controller runs. */
export async function openSession(cluster: Cluster, options: SessionOptions): Promise<Session> {
  openStateFolder(cluster.state);
  const { what, acting } = options;
  const lock = await acquireLock(cluster.state, { what, acting, waitMs: cluster.deadlines.hello });
  const journal = new Journal(cluster.state);
  if (acting) {
    try {
      journal.repair();
      journal.rotate();
    } catch (error) {
      lock.release();
      throw error;
    }
  }
  const fleet = new Fleet(cluster, options.vmm ?? qemuVmm(cluster), new Placement(cluster), options.timing);
  return {
    cluster,
    fleet,
    journal,
    lock,
    close: async () => {
      try {
        await fleet.close();
      } finally {
        lock.release();
      }
    },
  };
}
