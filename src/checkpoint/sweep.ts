/** Removes what dead writers left: folders without a manifest. */
import { existsSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { checkpointIds, readEntry } from "./entry.js";
import { Holds } from "./holds.js";
import { writerLife } from "./part-result.js";
import { writerOf } from "./part-write.js";
import { removeFolder } from "./pending.js";

/** A part that has not grown for so long is written by nobody, when its writer cannot be seen from here. */
const QUIET_MS = 60_000;

/** Ids of the folders that were removed. One whose writer lives, or one of whose parts is still written, stays. */
export function sweepStore(store: string, cluster: string): string[] {
  const swept: string[] = [];
  for (const id of checkpointIds(store)) {
    // Asked again under the hold; this only spares the whole ones a hold.
    if (stateOf(store, cluster, id) !== "partial") continue;
    const hold = new Holds(store, id).take("remove", "sweep");
    if ("kind" in hold) continue;
    try {
      // The file server's clock, by the time of our own record: that of this machine may be another.
      const now = statSync(hold.file, { throwIfNoEntry: false })?.mtimeMs ?? Date.now();
      if (stateOf(store, cluster, id) !== "partial" || isBeingWritten(join(store, id), now)) continue;
      removeFolder(store, id);
      swept.push(id);
    } finally {
      hold.release();
    }
  }
  return swept;
}

/** Undefined if it has gone meanwhile: the store may be shared, and `checkpoints rm` takes no lock of ours. */
function stateOf(store: string, cluster: string, id: string): string | undefined {
  try {
    return readEntry(store, cluster, id).state;
  } catch (error) {
    if (existsSync(join(store, id))) throw error;
    return undefined;
  }
}

/** Whether a host still writes a part of it, though the controller that wanted it is dead. */
function isBeingWritten(folder: string, now: number): boolean {
  const parts = readdirSync(folder).filter((name) => name.endsWith(writerOf("")));
  return parts.some((name) => {
    const part = join(folder, name.slice(0, -writerOf("").length));
    const life = writerLife(part);
    if (life !== "unknown") return life === "lives";
    const changed = statSync(part, { throwIfNoEntry: false })?.mtimeMs ?? 0;
    return now - changed < QUIET_MS;
  });
}
