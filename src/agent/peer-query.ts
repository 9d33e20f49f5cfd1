/**
 * Which ranks have told their whole picture of their peers to one query. A rank tells it in several datagrams
 * that do not say which question they answer: a query takes what begins at the first entry and goes on from there.
 */
export class PeerQuery<Peer> {
  /** By rank, the number of the entry that comes next. */
  readonly #next = new Map<Peer, number>();

  ask(peer: Peer): void {
    this.#next.set(peer, 0);
  }

  /** True if the part belongs to this query's answer: it is the next one of a rank that has not told all. */
  take(peer: Peer, { first, total, count }: { first: number; total: number; count: number }): boolean {
    if (first !== this.#next.get(peer)) return false;
    const next = first + count;
    if (next === total) this.#next.delete(peer);
    else this.#next.set(peer, next);
    return true;
  }

  /** Nothing more comes from this rank; true if something was still to come. */
  forget(peer: Peer): boolean {
    return this.#next.delete(peer);
  }

  get isComplete(): boolean {
    return this.#next.size === 0;
  }
}
