/** What the ranks of one VM say of each of their peers, put together from the lines of one answer. */
import { type GuestPeers, MAX_RANKS_PER_VM, type PeerReport } from "../protocol/messages.js";

interface Picture {
  total: number;
  peers: PeerReport[];
}

/**
 * A guest can make it hold no more than the pictures of MAX_RANKS_PER_VM ranks, of MAX_WORLD peers each. A part
 * that does not continue its rank's picture is not taken; one that begins it begins it anew (asked again after a
 * reconnect).
 */
export class PeerPictures {
  readonly #pictures = new Map<string, Picture>();

  take({ job, rank, first, total, peers }: GuestPeers): void {
    const key = `${job}/${rank}`;
    if (first === 0) {
      if (!this.#pictures.has(key) && this.#pictures.size >= MAX_RANKS_PER_VM) return;
      this.#pictures.set(key, { total, peers: [] });
    }
    const picture = this.#pictures.get(key);
    if (picture?.total !== total || picture.peers.length !== first || first + peers.length > total) return;
    picture.peers.push(...peers);
  }

  /** The whole picture of a rank, by peer; undefined if the rank has not told all of it. */
  of(job: string, rank: number): PeerReport[] | undefined {
    const picture = this.#pictures.get(`${job}/${rank}`);
    if (picture === undefined || picture.peers.length < picture.total) return undefined;
    return [...picture.peers].sort((a, b) => a.rank - b.rank);
  }
}
