/** Asks the ranks of all VMs whose agents answer for their pictures of their peers. */
import { SymvirtError } from "../errors.js";
import { anySignal } from "../signals.js";
import type { Fleet } from "./fleet.js";
import type { PeerPictures } from "./peer-pictures.js";

/** An agent answers within 300 ms; pictures of many ranks come no faster than a guest is read. */
const LIMIT_MS = 5000;

/**
 * By VM; one that does not answer in time is left out. The limit is well below the hello deadline, which whoever
 * asks a running controller waits for its whole answer.
 */
export async function askPeers(fleet: Fleet, signal: AbortSignal): Promise<Map<string, PeerPictures>> {
  const pictures = new Map<string, PeerPictures>();
  const ms = Math.min(LIMIT_MS, fleet.cluster.deadlines.hello / 2);
  const limit = anySignal([signal, AbortSignal.timeout(ms)]);
  const answering = fleet.links().filter((link) => link.hello !== undefined);
  await Promise.all(
    answering.map(async (link) => {
      try {
        pictures.set(link.vm, await link.queryPeers(limit));
      } catch (error) {
        signal.throwIfAborted();
        if (!(error instanceof SymvirtError)) throw error;
      }
    }),
  );
  return pictures;
}
