/** One connected rank, or one that has not said hello yet: whole datagrams in, a bounded queue out. */
import { type Accepted, type Descriptor, errorCode } from "./addon.js";
import { decodeRankDatagram, encodeReject, type RankMessage, WireError } from "./rank-wire.js";

/** Datagrams one connection may read per wake-up, so that a flooding rank cannot starve the others. */
const READS_PER_WAKE = 32;
/** What may wait for a rank that does not read. The bytes are shared among the ranks of a job. */
const MAX_QUEUED = 65_536;

export interface RankConnectionEvents {
  message(connection: RankConnection, message: RankMessage): void;
  /** The rank broke the protocol; the connection is closed next. */
  violation(connection: RankConnection, reason: string): void;
  /** Called once, whoever closed. */
  closed(connection: RankConnection): void;
}

export class RankConnection {
  readonly pid: number;
  readonly uid: number;
  readonly #descriptor: Descriptor;
  readonly #events: RankConnectionEvents;
  #queue: Buffer[] = [];
  #paused = false;
  #writeFailed = false;
  #open = true;

  constructor(accepted: Accepted, events: RankConnectionEvents) {
    this.pid = accepted.pid;
    this.uid = accepted.uid;
    this.#descriptor = accepted.descriptor;
    this.#events = events;
    this.#watch();
  }

  get isOpen(): boolean {
    return this.#open;
  }

  /** Queues a datagram; a rank that lets its queue overflow is cut off (it reconnects and gets all again). */
  send(datagram: Buffer): void {
    if (!this.#open || this.#writeFailed) return;
    if (this.#queue.length >= MAX_QUEUED) {
      this.#events.violation(this, `reads nothing: ${MAX_QUEUED} datagrams wait for it`);
      this.close();
      return;
    }
    this.#queue.push(datagram);
    if (this.#queue.length === 1) this.#flush();
  }

  /** Tells why, then closes. */
  reject(reason: string): void {
    this.send(encodeReject(reason));
    this.close();
  }

  /** Back-pressure: while paused nothing is read, so the rank's own sends block or wait. */
  setPaused(paused: boolean): void {
    if (this.#paused === paused) return;
    this.#paused = paused;
    this.#watch();
  }

  /** Idempotent. */
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    this.#queue = [];
    this.#descriptor.close();
    this.#events.closed(this);
  }

  #watch(): void {
    if (!this.#open) return;
    const writable = this.#queue.length > 0;
    if (this.#paused && !writable) this.#descriptor.unwatch();
    else this.#descriptor.watch(!this.#paused, writable, (r, w) => this.#ready(r, w));
  }

  #ready(readable: boolean, writable: boolean): void {
    if (writable) this.#flush();
    if (readable && !this.#paused) this.#readSome();
  }

  #flush(): void {
    let sent = 0;
    try {
      for (const datagram of this.#queue) {
        if (!this.#descriptor.send(datagram)) break;
        sent++;
      }
      this.#queue.splice(0, sent);
    } catch {
      // The peer is gone. What it sent before (a BYE, say) is still to be read: the reader sees the end.
      this.#writeFailed = true;
      this.#queue = [];
    }
    this.#watch();
  }

  #readSome(): void {
    for (let i = 0; i < READS_PER_WAKE && this.#open && !this.#paused; i++) {
      let datagram: Buffer | null;
      try {
        datagram = this.#descriptor.receive();
      } catch (error) {
        // The kernel tells of the reset before it hands out what came before it: read on to the end.
        if (errorCode(error) === "ECONNRESET") continue;
        this.#violation(errorCode(error) === "EMSGSIZE" ? "datagram longer than 32768 bytes" : String(error));
        return;
      }
      if (datagram === null) return;
      if (datagram.length === 0) {
        this.close();
        return;
      }
      this.#decode(datagram);
    }
  }

  #decode(datagram: Buffer): void {
    let message: RankMessage;
    try {
      message = decodeRankDatagram(datagram);
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      this.#violation(error.message);
      return;
    }
    this.#events.message(this, message);
  }

  #violation(reason: string): void {
    this.#events.violation(this, reason);
    this.reject(reason);
  }
}
