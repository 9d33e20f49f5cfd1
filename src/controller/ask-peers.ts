/** Asks the ranks of all VMs whose agents answer for their pictures of their peers. */
import { SymvirtError } from "../errors.js";
import { anySignal } from "../signals.js";
import type { Fleet } from "./fleet.js";
import type { PeerPictures } from "./peer-pictures.js";

/** By VM; one that does not answer within the hello deadline is left out. */
export async function askPeers(fleet: Fleet, signal: AbortSignal): Promise<Map<string, PeerPictures>> {
  const pictures = new Map<string, PeerPictures>();
  const limit = anySignal([signal, AbortSignal.timeout(fleet.cluster.deadlines.hello)]);
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
