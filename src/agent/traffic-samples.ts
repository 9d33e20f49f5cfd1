/**
 * Requests for the ranks' counters that are under way. A rank's state after the request counts as its answer; one
 * that says nothing in time is no part of the sample, so that no old number is passed off as a new one.
 */

const MAX_REQUESTS = 16;

export interface TrafficSamplesOptions<Peer> {
  /** How long ranks are waited for. */
  deadlineMs: number;
  /** All asked have told their counters or are gone, or the time is over. */
  ended: (id: number, told: ReadonlySet<Peer>) => void;
}

interface Request<Peer> {
  id: number;
  waiting: Set<Peer>;
  told: Set<Peer>;
  timer: NodeJS.Timeout;
}

export class TrafficSamples<Peer> {
  readonly #options: TrafficSamplesOptions<Peer>;
  readonly #requests = new Set<Request<Peer>>();

  constructor(options: TrafficSamplesOptions<Peer>) {
    this.#options = options;
  }

  /** These ranks have been asked. False if too many requests are under way; this one is not answered then. */
  ask(id: number, peers: Iterable<Peer>): boolean {
    if (this.#requests.size >= MAX_REQUESTS) return false;
    const request: Request<Peer> = {
      id,
      waiting: new Set(peers),
      told: new Set(),
      timer: setTimeout(() => this.#end(request), this.#options.deadlineMs),
    };
    this.#requests.add(request);
    if (request.waiting.size === 0) this.#end(request);
    return true;
  }

  told(peer: Peer): void {
    for (const request of this.#requests) {
      if (!request.waiting.delete(peer)) continue;
      request.told.add(peer);
      if (request.waiting.size === 0) this.#end(request);
    }
  }

  /** Nothing more comes from this rank. */
  gone(peer: Peer): void {
    for (const request of this.#requests)
      if (request.waiting.delete(peer) && request.waiting.size === 0) this.#end(request);
  }

  /** Nobody waits for the answers any more. */
  clear(): void {
    for (const { timer } of this.#requests) clearTimeout(timer);
    this.#requests.clear();
  }

  #end(request: Request<Peer>): void {
    clearTimeout(request.timer);
    this.#requests.delete(request);
    this.#options.ended(request.id, request.told);
  }
}
