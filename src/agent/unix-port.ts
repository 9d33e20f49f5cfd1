/** A host channel over a unix stream socket, for tests and for use outside of VMs. */
import { connect, createServer, type Server, type Socket } from "node:net";
import type { Logger } from "pino";
import { SymvirtError } from "../errors.js";
import { errorCode } from "./addon.js";
import { type HostPort, type HostPortEvents, LOW_WATER_BYTES } from "./host-port.js";

const RECONNECT_MS = 100;
const MAX_WAITING = 4;

export class UnixPort implements HostPort {
  readonly #path: string;
  readonly #log: Logger;
  readonly #events: HostPortEvents;
  #socket: Socket | undefined;
  #server: Server | undefined;
  #waiting: Socket[] = [];
  #timer: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(path: string, mode: "connect" | "listen", log: Logger, events: HostPortEvents) {
    this.#path = path;
    this.#log = log;
    this.#events = events;
    if (mode === "connect") this.#connect();
    else this.#listen();
  }

  get queuedBytes(): number {
    return this.#socket?.writableLength ?? 0;
  }

  write(bytes: Buffer): void {
    if (this.#socket?.writable === true) this.#socket.write(bytes);
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    for (const socket of [this.#socket, ...this.#waiting]) socket?.destroy();
    this.#server?.close();
  }

  #connect(): void {
    const socket = connect(this.#path);
    socket.once("connect", () => this.#use(socket));
    socket.on("error", (error) => this.#log.debug({ err: error, port: this.#path }, "host socket"));
    socket.once("close", () => {
      if (this.#closed) return;
      this.#timer = setTimeout(() => this.#connect(), RECONNECT_MS);
    });
  }

  #listen(): void {
    const server = createServer((socket) => {
      socket.on("error", (error) => this.#log.debug({ err: error, port: this.#path }, "host socket"));
      // One host end at a time, the next one waits: as QEMU's chardev has it.
      if (this.#socket === undefined) this.#use(socket);
      else if (this.#waiting.length < MAX_WAITING) this.#waiting.push(socket);
      else socket.destroy();
    });
    server.once("error", (cause) =>
      this.#events.failed(
        new SymvirtError("refused", `Cannot listen on the port "${this.#path}" (${errorCode(cause)})`, {
          cause,
          hint: "Another agent may serve it; remove the socket if it is stale",
        }),
      ),
    );
    server.listen(this.#path);
    this.#server = server;
  }

  #use(socket: Socket): void {
    if (this.#closed) {
      socket.destroy();
      return;
    }
    this.#socket = socket;
    socket.on("data", (chunk) => this.#events.data(chunk));
    socket.on("drain", () => {
      if (socket.writableLength < LOW_WATER_BYTES) this.#events.drained();
    });
    socket.once("close", () => {
      this.#socket = undefined;
      if (this.#closed) return;
      this.#events.away();
      const waiting = this.#waiting.filter((one) => !one.destroyed);
      const next = waiting.shift();
      this.#waiting = waiting;
      if (next !== undefined) this.#use(next);
    });
    this.#events.opened();
  }
}
