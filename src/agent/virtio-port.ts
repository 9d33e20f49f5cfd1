/**
 * A virtio-serial port through the addon. The guest kernel signals a host end that is away by POLLHUP
 * for ever, and a read gives end of file; polling it would spin, so it is looked at by a timer until the
 * host is back.
 */
import type { Logger } from "pino";
import { SymvirtError } from "../errors.js";
import { type Addon, type Descriptor, errorCode } from "./addon.js";
import { type HostPort, type HostPortEvents, LOW_WATER_BYTES } from "./host-port.js";

const HOST_AWAY_POLL_MS = 100;
const REOPEN_MS = 250;
const READS_PER_WAKE = 8;
/** The kernel takes at most 32 KiB of one write. */
const WRITE_BYTES = 32 * 1024;

export class VirtioPort implements HostPort {
  readonly #path: string;
  readonly #addon: Addon;
  readonly #log: Logger;
  readonly #events: HostPortEvents;
  #descriptor: Descriptor | undefined;
  #timer: NodeJS.Timeout | undefined;
  #queue: Buffer[] = [];
  #queuedBytes = 0;
  #hostHere = false;
  #complained = false;
  #closed = false;

  constructor(path: string, addon: Addon, log: Logger, events: HostPortEvents) {
    this.#path = path;
    this.#addon = addon;
    this.#log = log;
    this.#events = events;
    // Later: the owner has no port object yet while this constructor runs.
    this.#timer = setTimeout(() => this.#open(), 0);
  }

  get queuedBytes(): number {
    return this.#queuedBytes;
  }

  write(bytes: Buffer): void {
    if (!this.#hostHere) return;
    this.#queue.push(bytes);
    this.#queuedBytes += bytes.length;
    if (this.#queue.length === 1) this.#flush();
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#dropQueue();
    this.#hostHere = false;
    this.#descriptor?.close();
    this.#descriptor = undefined;
  }

  #open(): void {
    try {
      this.#descriptor = this.#addon.openPort(this.#path);
    } catch (cause) {
      const code = errorCode(cause);
      if (code === "ENOENT" || code === "ENODEV" || code === "ENXIO") {
        if (!this.#complained)
          this.#log.warn({ port: this.#path, code }, "the port is not there yet, waiting for it");
        this.#complained = true;
        this.#timer = setTimeout(() => this.#open(), REOPEN_MS);
        return;
      }
      this.#events.failed(
        new SymvirtError("refused", `Cannot open the port "${this.#path}" (${code})`, {
          cause,
          hint:
            code === "EBUSY"
              ? "Another agent has it open: stop that one first"
              : "The agent needs read and write access to a character device",
        }),
      );
      return;
    }
    this.#complained = false;
    this.#lookForHost();
  }

  #lookForHost(): void {
    if (this.#descriptor === undefined) return;
    if (this.#descriptor.hungUp()) {
      this.#timer = setTimeout(() => this.#lookForHost(), HOST_AWAY_POLL_MS);
      return;
    }
    this.#hostHere = true;
    this.#watch();
    this.#events.opened();
  }

  #watch(): void {
    if (!this.#hostHere) return;
    this.#descriptor?.watch(true, this.#queue.length > 0, (readable, writable) => {
      if (writable) this.#flush();
      if (readable) this.#readSome();
    });
  }

  #readSome(): void {
    for (let i = 0; i < READS_PER_WAKE && this.#descriptor !== undefined && this.#hostHere; i++) {
      let chunk: Buffer | null;
      try {
        chunk = this.#descriptor.read();
      } catch (error) {
        this.#lost(error);
        return;
      }
      if (chunk === null) {
        // Woken with nothing to read: a hang-up that came without an end of file.
        if (i === 0 && this.#descriptor.hungUp()) this.#away();
        return;
      }
      if (chunk.length === 0) {
        this.#away();
        return;
      }
      this.#events.data(chunk);
    }
  }

  #flush(): void {
    const before = this.#queuedBytes;
    try {
      for (
        let head = this.#queue[0];
        head !== undefined && this.#descriptor !== undefined;
        head = this.#queue[0]
      ) {
        const taken = this.#descriptor.write(head.subarray(0, WRITE_BYTES));
        if (taken === 0) break;
        this.#queuedBytes -= taken;
        if (taken === head.length) this.#queue.shift();
        else this.#queue[0] = head.subarray(taken);
      }
    } catch (error) {
      this.#lost(error);
      return;
    }
    this.#watch();
    if (before >= LOW_WATER_BYTES && this.#queuedBytes < LOW_WATER_BYTES) this.#events.drained();
  }

  #away(): void {
    if (!this.#hostHere) return;
    this.#hostHere = false;
    this.#descriptor?.unwatch();
    this.#dropQueue();
    this.#events.away();
    if (!this.#closed) this.#timer = setTimeout(() => this.#lookForHost(), HOST_AWAY_POLL_MS);
  }

  /** The device itself is gone (unplugged, or the far end of a terminal closed): open it anew. */
  #lost(error: unknown): void {
    this.#log.warn({ err: error, port: this.#path }, "the port failed, opening it anew");
    this.#descriptor?.close();
    this.#descriptor = undefined;
    this.#dropQueue();
    if (this.#hostHere) {
      this.#hostHere = false;
      this.#events.away();
    }
    if (!this.#closed) this.#timer = setTimeout(() => this.#open(), REOPEN_MS);
  }

  #dropQueue(): void {
    this.#queue = [];
    this.#queuedBytes = 0;
  }
}
