/**
 * A byte stream to a unix socket of a host: directly, or through the host's `dial` command (ssh and
 * socat, say) whose standard input and output become the stream.
 */
import { spawn } from "node:child_process";
import { connect } from "node:net";
import type { Duplex } from "node:stream";
import { SymvirtError } from "../errors.js";
import { ChildStream } from "./child-stream.js";
import { abortError } from "./deadline.js";

export interface DialTarget {
  /** Command that reaches a unix socket of the host, "{socket}" replaced; [] = connect directly. */
  dial: readonly string[];
  /** Absolute path on that host. */
  socket: string;
  /** For messages, e.g. "QMP of vm1 on h2". */
  what: string;
}

/**
 * Opens the stream. A direct connection is established when it resolves; a spawned command has only
 * been started, and the far end proves itself with its first byte (a failing command ends the stream
 * with an error that quotes its stderr).
 *
 * Throws SymvirtError: "unreachable" when there is no listener, "deadline" or "interrupted" on abort.
 */
export async function dial(target: DialTarget, signal: AbortSignal): Promise<Duplex> {
  if (signal.aborted) throw abortError(signal, `dial ${target.what}`);
  return target.dial.length === 0 ? connectDirectly(target, signal) : spawnDialer(target, signal);
}

function connectDirectly(target: DialTarget, signal: AbortSignal): Promise<Duplex> {
  return new Promise((resolve, reject) => {
    const socket = connect({ path: target.socket });
    const onAbort = () => {
      socket.destroy();
      reject(abortError(signal, `dial ${target.what} at ${target.socket}`));
    };
    const onError = (error: NodeJS.ErrnoException) => {
      signal.removeEventListener("abort", onAbort);
      reject(unreachable(target, error));
    };
    signal.addEventListener("abort", onAbort, { once: true });
    socket.once("error", onError);
    socket.once("connect", () => {
      signal.removeEventListener("abort", onAbort);
      socket.off("error", onError);
      resolve(socket);
    });
  });
}

function spawnDialer(target: DialTarget, signal: AbortSignal): Promise<Duplex> {
  const [program = "", ...args] = target.dial.map((part) => part.replaceAll("{socket}", target.socket));
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: ["pipe", "pipe", "pipe"] });
    const stream = new ChildStream(child, `${target.what} (${[program, ...args].join(" ")})`);
    const onAbort = () => {
      stream.once("error", () => {}); // its only news would be this abort
      stream.destroy();
      reject(abortError(signal, `dial ${target.what} with ${program}`));
    };
    const onError = (error: NodeJS.ErrnoException) => {
      signal.removeEventListener("abort", onAbort);
      stream.destroy();
      reject(unreachable(target, error, program));
    };
    signal.addEventListener("abort", onAbort, { once: true });
    child.once("error", onError);
    child.once("spawn", () => {
      signal.removeEventListener("abort", onAbort);
      child.off("error", onError);
      child.on("error", (error) => stream.destroy(error));
      resolve(stream);
    });
  });
}

/** What to do about a socket that does not answer, by the reason the kernel gives. */
function unreachable(target: DialTarget, error: NodeJS.ErrnoException, program?: string): SymvirtError {
  if (program !== undefined) {
    return new SymvirtError("unreachable", `${target.what}: cannot start "${program}": ${error.message}`, {
      hint: 'check the "dial" command of the host in the cluster file',
      cause: error,
    });
  }
  const hints: Record<string, string> = {
    ENOENT: "the VM is not running on this host, or its command uses another socket path",
    ECONNREFUSED: "the socket is left over from a VM that has ended; start the VM again",
    EACCES: "run symvirt as the user that owns the socket, or as root",
    EAGAIN: "another client holds the socket; end it first",
  };
  return new SymvirtError(
    "unreachable",
    `${target.what} does not answer at ${target.socket} (${error.code ?? error.message})`,
    { hint: hints[error.code ?? ""] ?? "check that the VM is running on this host", cause: error },
  );
}
