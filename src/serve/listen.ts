/** Where a server listens: a unix socket, or an address of the loopback unless told otherwise. */
import { chmodSync, lstatSync, rmSync } from "node:fs";
import { connect, isIP } from "node:net";
import { SymvirtError } from "../errors.js";

export type ListenAddress = { path: string } | { host: string; port: number };

/** "unix:/path", "127.0.0.1:9720" or "[::1]:9720". Throws "usage" for anything else. */
export function parseListen(text: string): ListenAddress {
  if (text.startsWith("unix:/")) {
    const path = text.slice("unix:".length);
    // The kernel cuts longer ones off in silence.
    if (Buffer.byteLength(path) <= 107) return { path };
    throw new SymvirtError("usage", `the socket path ${path} is longer than 107 bytes`);
  }
  const match = /^(?:\[([0-9a-fA-F:]+)\]|([0-9.]+|localhost)):(\d{1,5})$/.exec(text);
  const host = match?.[1] ?? match?.[2]?.replace("localhost", "127.0.0.1") ?? "";
  const port = Number(match?.[3]);
  if (isIP(host) !== 0 && port <= 65535) return { host, port };
  throw new SymvirtError("usage", `cannot listen on "${text}"`, {
    hint: "give unix:/PATH, 127.0.0.1:PORT or [::1]:PORT",
  });
}

export function isLoopback(address: ListenAddress): boolean {
  return "path" in address || address.host === "::1" || /^127\./.test(address.host);
}

/** Whether a Host header names this machine: a page in a browser that was led here by DNS names another. */
export function namesLoopback(header: string | undefined): boolean {
  return /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?$/i.test(header ?? "");
}

/** Removes a socket that a dead server left. Throws "refused" when one answers there. */
export async function freeSocket(path: string): Promise<void> {
  let isSocket: boolean;
  try {
    isSocket = lstatSync(path).isSocket();
  } catch {
    return;
  }
  if (!isSocket) throw new SymvirtError("usage", `${path} is there and is no socket`);
  const answers = await new Promise<boolean>((resolve) => {
    const socket = connect({ path });
    socket.once("connect", () => resolve(true)).once("error", () => resolve(false));
    socket.once("connect", () => socket.destroy());
  });
  if (answers) throw new SymvirtError("refused", `another process serves ${path}`);
  rmSync(path, { force: true });
}

/** Runs `listen` so that a socket it makes is never open to others. */
export async function withClosedUmask<T>(path: string | undefined, listen: () => Promise<T>): Promise<T> {
  if (path === undefined) return await listen();
  const umask = process.umask(0o177);
  try {
    const made = await listen();
    chmodSync(path, 0o600);
    return made;
  } finally {
    process.umask(umask);
  }
}
