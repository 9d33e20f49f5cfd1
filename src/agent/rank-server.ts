/**
 * The socket the ranks of this VM connect to. Anybody may connect (mode 0666); who may register is
 * decided by uid in the job table. Here are the caps that keep a hostile local user from costing the
 * agent more than a few descriptors.
 */
import { existsSync, mkdirSync, unlinkSync } from "node:fs";
import { dirname } from "node:path";
import type { Logger } from "pino";
import { SymvirtError } from "../errors.js";
import { type Accepted, type Addon, type Descriptor, errorCode } from "./addon.js";
import { RankConnection, type RankConnectionEvents } from "./rank-connection.js";
import { encodeReject, type RankHello, type RankMessage } from "./rank-wire.js";
import { atMostEvery } from "./throttle.js";

const HELLO_DEADLINE_MS = 2000;
const MAX_UNREGISTERED_PER_UID = 8;
const MAX_UNREGISTERED = 64;
const ACCEPTS_PER_WAKE = 32;
/** How long to stop accepting when the process or the machine is out of descriptors. */
const EXHAUSTED_BACKOFF_MS = 500;

export interface RankServerEvents {
  /** Registers the rank, or returns the reason why not. */
  hello(connection: RankConnection, hello: RankHello): string | undefined;
  message(connection: RankConnection, message: Exclude<RankMessage, RankHello>): void;
  /** A registered connection has ended. */
  closed(connection: RankConnection): void;
}

export class RankServer {
  readonly #path: string;
  readonly #addon: Addon;
  readonly #log: Logger;
  readonly #events: RankServerEvents;
  readonly #listener: Descriptor;
  readonly #unregistered = new Map<RankConnection, NodeJS.Timeout>();
  readonly #registered = new Set<RankConnection>();
  readonly #sometimes = atMostEvery(1000);
  #backoff: NodeJS.Timeout | undefined;
  #paused = false;
  #closed = false;

  /** Listens at once. Throws a SymvirtError (refused) if another agent serves the path. */
  constructor(options: { path: string; addon: Addon; log: Logger; events: RankServerEvents }) {
    this.#path = options.path;
    this.#addon = options.addon;
    this.#log = options.log;
    this.#events = options.events;
    this.#listener = this.#listen();
    this.#watch();
  }

  /** Connections open now, registered or not. */
  get connections(): number {
    return this.#unregistered.size + this.#registered.size;
  }

  /** Back-pressure on every rank at once. */
  setPaused(paused: boolean): void {
    this.#paused = paused;
    for (const connection of this.#registered) connection.setPaused(paused);
  }

  /** Closes all connections and removes the socket. Idempotent. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#backoff);
    this.#listener.close();
    for (const connection of [...this.#unregistered.keys(), ...this.#registered]) connection.close();
    try {
      unlinkSync(this.#path);
    } catch (error) {
      if (errorCode(error) !== "ENOENT") this.#log.warn({ err: error }, "cannot remove the rank socket");
    }
  }

  #listen(): Descriptor {
    mkdirSync(dirname(this.#path), { recursive: true, mode: 0o755 });
    if (existsSync(this.#path)) {
      if (this.#isServed()) {
        throw new SymvirtError("refused", `Another agent serves the rank socket "${this.#path}"`, {
          hint: "Stop it first (systemctl stop symvirt-agent), or give this one another --socket",
        });
      }
      unlinkSync(this.#path);
    }
    try {
      return this.#addon.listen(this.#path, 0o666, 128);
    } catch (cause) {
      throw new SymvirtError("refused", `Cannot listen on the rank socket "${this.#path}"`, {
        cause,
        hint: `${errorCode(cause)}: the agent needs to write to that folder, and nobody else may hold the path`,
      });
    }
  }

  #isServed(): boolean {
    try {
      this.#addon.connect(this.#path).close();
      return true;
    } catch (error) {
      // EAGAIN: it listens, its backlog is full. ECONNREFUSED and the like: stale.
      return errorCode(error) === "EAGAIN";
    }
  }

  #watch(): void {
    if (!this.#closed) this.#listener.watch(true, false, () => this.#acceptSome());
  }

  #acceptSome(): void {
    for (let i = 0; i < ACCEPTS_PER_WAKE; i++) {
      let accepted: Accepted | null;
      try {
        accepted = this.#listener.accept();
      } catch (error) {
        // The listening socket stays readable: without a pause this would spin.
        this.#sometimes(() => this.#log.error({ err: error }, "cannot accept a rank, pausing"));
        this.#listener.unwatch();
        this.#backoff = setTimeout(() => this.#watch(), EXHAUSTED_BACKOFF_MS);
        return;
      }
      if (accepted === null) return;
      this.#admit(accepted);
    }
  }

  #admit(accepted: Accepted): void {
    let sameUid = 0;
    for (const other of this.#unregistered.keys()) if (other.uid === accepted.uid) sameUid++;
    if (sameUid >= MAX_UNREGISTERED_PER_UID || this.#unregistered.size >= MAX_UNREGISTERED) {
      const { pid, uid } = accepted;
      this.#sometimes(() => this.#log.warn({ pid, uid }, "too many connections without a hello"));
      try {
        accepted.descriptor.send(encodeReject("too many connections without a hello"));
      } catch {
        // It is gone already; it is closed either way.
      }
      accepted.descriptor.close();
      return;
    }
    const events: RankConnectionEvents = {
      message: (connection, message) => this.#message(connection, message),
      violation: (connection, reason) =>
        this.#sometimes(() =>
          this.#log.warn({ pid: connection.pid, uid: connection.uid, reason }, "rank broke the protocol"),
        ),
      closed: (connection) => this.#gone(connection),
    };
    const connection = new RankConnection(accepted, events);
    const timer = setTimeout(() => connection.reject("no hello within 2 s"), HELLO_DEADLINE_MS);
    this.#unregistered.set(connection, timer);
  }

  #message(connection: RankConnection, message: RankMessage): void {
    if (message.type !== "hello") {
      if (this.#registered.has(connection)) this.#events.message(connection, message);
      else connection.reject("the first datagram must be a hello");
      return;
    }
    if (this.#registered.has(connection)) {
      connection.reject("second hello on one connection");
      return;
    }
    clearTimeout(this.#unregistered.get(connection));
    this.#unregistered.delete(connection);
    this.#registered.add(connection);
    connection.setPaused(this.#paused);
    const refusal = this.#events.hello(connection, message);
    if (refusal !== undefined) {
      this.#registered.delete(connection);
      const { pid, uid } = connection;
      this.#sometimes(() => this.#log.warn({ pid, uid, rank: message.rank, refusal }, "rank refused"));
      connection.reject(refusal);
    }
  }

  #gone(connection: RankConnection): void {
    clearTimeout(this.#unregistered.get(connection));
    this.#unregistered.delete(connection);
    if (this.#registered.delete(connection)) this.#events.closed(connection);
  }
}
