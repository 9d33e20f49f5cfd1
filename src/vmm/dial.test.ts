import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { SymvirtError } from "../errors.js";
import { dial } from "./dial.js";

const soon = () => AbortSignal.timeout(5_000);
let folder: string;
let echo: Server;
let socket: string;
const open: Duplex[] = [];

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "symvirt-dial-"));
  socket = join(folder, "echo.sock");
  echo = createServer((peer) => peer.pipe(peer));
  await new Promise<void>((resolve) => echo.listen(socket, resolve));
});
afterEach(async () => {
  for (const stream of open.splice(0)) stream.destroy();
  await new Promise((resolve) => echo.close(resolve));
  await rm(folder, { recursive: true, force: true });
});

async function dialled(argv: string[], signal = soon()): Promise<Duplex> {
  const stream = await dial({ dial: argv, socket, what: "QMP of vm1 on h2" }, signal);
  open.push(stream);
  return stream;
}

async function roundTrip(stream: Duplex, bytes: Buffer): Promise<Buffer> {
  const parts: Buffer[] = [];
  let length = 0;
  stream.write(bytes);
  for await (const part of stream.iterator({ destroyOnReturn: false })) {
    parts.push(part as Buffer);
    length += (part as Buffer).length;
    if (length >= bytes.length) break;
  }
  return Buffer.concat(parts);
}

async function failure(promise: Promise<unknown>): Promise<SymvirtError> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(SymvirtError);
  return error as SymvirtError;
}

/** A dial command like `socat - UNIX:{socket}`, made of what every test machine has. */
const standIn = [
  process.execPath,
  "-e",
  "const s = require('net').connect(process.argv[1]); process.stdin.pipe(s); s.pipe(process.stdout)",
  "{socket}",
];

describe("dial", () => {
  it.each([
    ["directly", []],
    ["through a command", standIn],
    ["through cat, which needs no socket", ["cat"]],
  ])("carries a megabyte both ways %s", async (_name, argv) => {
    const bytes = Buffer.alloc(2 ** 20, "0123456789abcdef");
    expect((await roundTrip(await dialled(argv), bytes)).equals(bytes)).toBe(true);
  });

  it("replaces {socket} inside an argument too", async () => {
    const stream = await dialled(["printf", "%s", "UNIX:{socket}"]);
    let text = "";
    for await (const part of stream) text += String(part);
    expect(text).toBe(`UNIX:${socket}`);
  });

  it("ends the command when the stream is destroyed", async () => {
    const ended = join(folder, "ended");
    const stream = await dialled([
      "sh",
      "-c",
      "trap 'touch \"$0\"; exit 0' TERM; echo up; while :; do sleep 0.05; done",
      ended,
    ]);
    await new Promise((resolve) => stream.once("data", resolve));
    stream.destroy();
    await expect.poll(() => existsSync(ended), { timeout: 3_000 }).toBe(true);
  });

  it("passes on the end of the command as the end of the stream", async () => {
    const stream = await dialled(["cat"]);
    stream.end("bye");
    let text = "";
    for await (const part of stream) text += String(part);
    expect(text).toBe("bye");
  });

  it("ends with the command's own words when it fails", async () => {
    const stream = await dialled(["sh", "-c", "echo 'no route to h2' >&2; exit 3"]);
    const error = await new Promise<Error>((resolve) => stream.once("error", resolve));
    expect(error).toMatchObject({ exit: "unreachable" });
    expect(error.message).toMatch(/QMP of vm1 on h2 \(sh .*exit code 3: no route to h2/);
  });

  it("says unreachable for a command that does not exist", async () => {
    const error = await failure(dialled(["/nonexistent/dialler"]));
    expect(error.exit).toBe("unreachable");
    expect(error.hint).toContain('"dial"');
  });

  it("tells a socket that is not there from one that nobody serves", async () => {
    const gone = { dial: [], socket: join(folder, "gone.sock"), what: "QMP of vm1 on h2" };
    const absent = await failure(dial(gone, soon()));
    expect(absent.exit).toBe("unreachable");
    expect(absent.message).toContain("QMP of vm1 on h2 does not answer at");
    expect(absent.message).toContain("ENOENT");
    expect(absent.hint).toContain("not running on this host");
  });

  it("does nothing when already aborted, with the exit of the reason", async () => {
    expect((await failure(dialled([], AbortSignal.abort()))).exit).toBe("interrupted");
    const reason = new SymvirtError("terminated", "told to stop");
    expect((await failure(dialled(standIn, AbortSignal.abort(reason)))).exit).toBe("terminated");
  });
});
