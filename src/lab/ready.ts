/** Waiting until a started guest can be worked with: ssh answers, and the agent says hello. */
import { randomBytes } from "node:crypto";
import { open, readFile } from "node:fs/promises";
import { createConnection } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { SymvirtError } from "../errors.js";
import { guestHello, MAX_LINE_BYTES, PROTOCOL_VERSION } from "../protocol/messages.js";
import type { OpenLab } from "./lab-cluster.js";
import { labExec } from "./ssh.js";

/** Last lines of a serial log, for an error message; empty when there is none. */
export async function serialTail(path: string, lines = 12): Promise<string> {
  const text = await readFile(path, "utf8").catch(() => "");
  return text.replaceAll("\r", "").trimEnd().split("\n").slice(-lines).join("\n");
}

/** Resolves when the serial log holds `text`. Reads on from where it stopped. */
async function waitForSerial(path: string, text: string, signal: AbortSignal): Promise<void> {
  let seen = "";
  const file = await open(path, "r");
  try {
    for (;;) {
      const { bytesRead, buffer } = await file.read({ buffer: Buffer.alloc(65536) });
      seen = (seen + buffer.toString("latin1", 0, bytesRead)).slice(-70_000);
      if (seen.includes(text)) return;
      if (bytesRead === 0) await delay(100, undefined, { signal });
    }
  } finally {
    await file.close();
  }
}

/** Resolves when a command has run in the guest over ssh. */
export async function waitForSsh(
  lab: OpenLab,
  vm: string,
  serial: string,
  signal: AbortSignal,
): Promise<void> {
  // The network is up at this line; asking before it would only cost the guest time.
  await waitForSerial(serial, "boot done", signal);
  for (;;) {
    const result = await labExec(lab, vm, ["true"], { signal });
    if (result.code === 0) return;
    await delay(250, undefined, { signal });
  }
}

/**
 * Resolves when the guest's agent has answered a hello of ours on its channel, then lets go of the
 * channel (it takes one host at a time). Repeats the hello: an agent that is not there yet never saw it.
 */
export async function waitForHello(channel: string, signal: AbortSignal): Promise<void> {
  for (;;) {
    signal.throwIfAborted();
    if (await helloOnce(channel, 3000, signal)) return;
    await delay(200, undefined, { signal });
  }
}

function helloOnce(channel: string, waitMs: number, signal: AbortSignal): Promise<boolean> {
  const session = randomBytes(16).toString("hex");
  const socket = createConnection(channel);
  return new Promise((resolve, reject) => {
    const finish = (answered: boolean): void => {
      clearTimeout(deadline);
      signal.removeEventListener("abort", abort);
      socket.destroy();
      resolve(answered);
    };
    const abort = (): void => {
      socket.destroy();
      reject(signal.reason);
    };
    const deadline = setTimeout(() => finish(false), waitMs);
    signal.addEventListener("abort", abort, { once: true });
    socket.once("error", () => finish(false));
    socket.once("close", () => finish(false));
    socket.once("connect", () => {
      // 0xFF makes the other end drop whatever half a line came before.
      socket.write(Buffer.from([0xff]));
      socket.write(`${JSON.stringify({ type: "hello", v: PROTOCOL_VERSION, session })}\n`);
    });
    let rest = "";
    socket.on("data", (data) => {
      const lines = (rest + data.toString("latin1")).split("\n");
      rest = (lines.pop() ?? "").slice(-MAX_LINE_BYTES);
      if (lines.some((line) => isHello(line, session))) finish(true);
    });
  });
}

/** True for the agent's hello of this session. Anything else a guest sends is dropped. */
export function isHello(line: string, session: string): boolean {
  try {
    const hello = guestHello.safeParse(JSON.parse(line.replace(/^.*\xff/s, "")));
    return hello.success && hello.data.session === session;
  } catch {
    // Not JSON: a guest may send garbage, which is no hello.
    return false;
  }
}

/** Turns a boot that did not come to its end into an error with the guest's last words. */
export async function bootFailure(
  vm: string,
  what: string,
  serial: string,
  cause: unknown,
): Promise<SymvirtError> {
  const tail = await serialTail(serial);
  return new SymvirtError(
    "deadline",
    `Guest "${vm}" did not come up: ${what}. Its last lines on ${serial}:\n${tail || "(nothing)"}`,
    { cause, hint: "symvirt lab down, then lab up again" },
  );
}
