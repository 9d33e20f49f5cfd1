/**
 * The native addon symvirt.node (native/addon): system calls Node has no way to make. Everything here
 * is non-blocking and runs on the event loop; errors carry `code` and `syscall` like Node's own.
 */
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { SymvirtError } from "../errors.js";

/** A non-blocking descriptor. It is closed once, by `close()` or by the garbage collector. */
export interface Descriptor {
  /** Calls back on readiness until `unwatch` or `close`; a new call replaces the old. Level-triggered. */
  watch(readable: boolean, writable: boolean, callback: (readable: boolean, writable: boolean) => void): void;
  unwatch(): void;
  /** Idempotent. */
  close(): void;
  /** True while the other end is away. */
  hungUp(): boolean;
  /** The next waiting connection, or null. EMFILE and ENFILE throw: the caller must back off. */
  accept(): Accepted | null;
  /** One whole datagram; null when there is none now; empty when the peer has closed. Too large: EMSGSIZE. */
  receive(): Buffer | null;
  /** False when the peer's queue is full: try again when writable. */
  send(datagram: Buffer): boolean;
  /** One raw uevent of the kernel, or null. */
  receiveUevent(): Buffer | null;
  /** Up to 64 KiB of bytes; null when there are none now; empty at end of file. */
  read(): Buffer | null;
  /** Bytes taken, 0 when none can be taken now. */
  write(bytes: Buffer): number;
}

export interface Accepted {
  descriptor: Descriptor;
  pid: number;
  uid: number;
  gid: number;
}

export interface Addon {
  /** A listening SOCK_SEQPACKET socket. EADDRINUSE if the path exists, stale or not. */
  listen(path: string, mode: number, backlog: number): Descriptor;
  /** A connected SOCK_SEQPACKET socket. */
  connect(path: string): Descriptor;
  /** A character device opened for reading and writing. EBUSY: another process has the virtio port. */
  openPort(path: string): Descriptor;
  /** The kernel's uevent broadcast. */
  openUevents(): Descriptor;
}

let loaded: Addon | undefined;

/** Loads the addon from the package's build/Release; throws a SymvirtError that says how to build it. */
export function loadAddon(): Addon {
  if (loaded !== undefined) return loaded;
  // The same place from src/agent and from dist/agent.
  const path = fileURLToPath(new URL("../../build/Release/symvirt.node", import.meta.url));
  try {
    loaded = createRequire(import.meta.url)(path) as Addon;
  } catch (cause) {
    throw new SymvirtError("internal", `Cannot load the native addon "${path}"`, {
      cause,
      hint: "Build it with: npm run build (needs a C++ compiler), or install the packaged symvirt for this Node and architecture",
    });
  }
  return loaded;
}

/** The `code` of a system error ("ENOENT"), or "" for anything else. */
export function errorCode(error: unknown): string {
  if (typeof error !== "object" || error === null || !("code" in error)) return "";
  return typeof error.code === "string" ? error.code : "";
}
