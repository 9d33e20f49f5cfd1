/**
 * control.sock: a running controller answers `status` and `abort` on it. One JSON line asks, one answers.
 * Only the owner of the state folder can open it (folder 0700, socket 0600).
 */
import { chmodSync, rmSync } from "node:fs";
import { connect, createServer, type Socket } from "node:net";
import { join } from "node:path";
import { z } from "zod";
import { SymvirtError } from "../../errors.js";
import { encodeLine, LineDecoder } from "../../protocol/framing.js";

const requestSchema = z.strictObject({
  ask: z.enum(["status", "abort"]),
  /** Of "status": each rank's picture of its peers, too. */
  peers: z.literal(true).optional(),
});
export type ControlRequest = z.infer<typeof requestSchema>;
const MAX_REQUEST = 4096;
const MAX_ANSWER = 16 * 1024 * 1024;

export interface ControlSocket {
  close(): Promise<void>;
}

/** Serves requests until closed. `answer` may take long (abort answers when the cycle has ended). */
export async function serveControl(
  folder: string,
  answer: (request: ControlRequest) => Promise<object>,
): Promise<ControlSocket> {
  const path = join(folder, "control.sock");
  // We hold the lock, so a socket found here belongs to a dead controller.
  rmSync(path, { force: true });
  const open = new Set<Socket>();
  const pending = new Set<Promise<void>>();
  const server = createServer((socket) => {
    open.add(socket);
    socket.on("close", () => open.delete(socket));
    socket.on("error", () => socket.destroy());
    const decoder = new LineDecoder({ maxBytes: MAX_REQUEST });
    socket.on("data", (chunk: Buffer) => {
      for (const line of decoder.push(chunk)) {
        const work = handle(line).then((reply) => void socket.end(encodeLine(reply)));
        pending.add(work);
        void work.finally(() => pending.delete(work));
      }
      if (decoder.dropped.oversize + decoder.dropped.malformed > 0) socket.destroy();
    });
  });
  const handle = async (line: string): Promise<object> => {
    try {
      return await answer(requestSchema.parse(JSON.parse(line)));
    } catch (error) {
      return { error: error instanceof z.ZodError ? "unknown request" : String(error) };
    }
  };
  // The socket must never be there with wider rights than 0600, however short.
  const umask = process.umask(0o177);
  try {
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(path, resolve);
    });
  } finally {
    process.umask(umask);
  }
  chmodSync(path, 0o600);
  return {
    close: async () => {
      server.close();
      await Promise.all([...pending]);
      for (const socket of open) socket.destroySoon();
      rmSync(path, { force: true });
    },
  };
}

/** The controller ended while it was asked. */
export class ControllerGone extends SymvirtError {
  constructor() {
    super("unreachable", "the running controller closed its control socket without an answer", {
      hint: "ask again",
    });
  }
}

/** Asks the running controller. Undefined when none listens. Throws ControllerGone, or "unreachable" when the signal aborts. */
export async function askControl(
  folder: string,
  request: ControlRequest,
  signal: AbortSignal,
): Promise<unknown | undefined> {
  const socket = connect({ path: join(folder, "control.sock") });
  const stop = () =>
    socket.destroy(
      new SymvirtError("unreachable", "the running controller does not answer on its control socket", {
        hint: "if it hangs, end its process: `symvirt abort` then finishes its cycle",
        cause: signal.reason,
      }),
    );
  signal.addEventListener("abort", stop, { once: true });
  try {
    return await new Promise<unknown>((resolve, reject) => {
      const decoder = new LineDecoder({ maxBytes: MAX_ANSWER });
      socket.on("connect", () => socket.write(encodeLine(request)));
      socket.on("data", (chunk: Buffer) => {
        const [line] = decoder.push(chunk);
        if (line !== undefined) resolve(JSON.parse(line));
        else if (decoder.dropped.oversize > 0)
          reject(new SymvirtError("internal", `the controller's answer is over ${MAX_ANSWER} bytes`));
      });
      socket.on("error", reject);
      socket.on("close", () => reject(new ControllerGone()));
      if (signal.aborted) stop();
    });
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === "ENOENT" || code === "ECONNREFUSED") return undefined;
    if (code === "ECONNRESET" || code === "EPIPE") throw new ControllerGone();
    throw error;
  } finally {
    signal.removeEventListener("abort", stop);
    socket.destroy();
  }
}
