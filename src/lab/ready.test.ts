import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { isHello, waitForHello } from "./ready.js";

const session = "0123456789abcdef0123456789abcdef";
const hello = (over: object = {}): string =>
  JSON.stringify({
    type: "hello",
    v: 1,
    session,
    agentVersion: "0.1.0",
    hostname: "vm1",
    kernel: "6.1",
    bootId: "b",
    ...over,
  });

describe("isHello", () => {
  it("takes the agent's answer to this session only", () => {
    expect(isHello(hello(), session)).toBe(true);
    expect(isHello(`\xff${hello()}`, session)).toBe(true);
    expect(isHello(hello({ session: "f".repeat(32) }), session)).toBe(false);
    expect(isHello('{"type":"state"}', session)).toBe(false);
    expect(isHello("garbage", session)).toBe(false);
    expect(isHello("", session)).toBe(false);
  });
});

describe("waitForHello", () => {
  let folder: string;
  let server: Server | undefined;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "symvirt-hello-"));
  });
  afterEach(() => {
    server?.close();
    rmSync(folder, { recursive: true });
  });
  const serve = (answer: (line: string) => string): Promise<string> => {
    const path = join(folder, "channel");
    server = createServer((socket) => {
      socket.on("error", () => undefined);
      socket.on("data", (data) => {
        const line = data.toString("latin1").replace("\xff", "").trim();
        if (line !== "") socket.write(answer(line));
      });
    });
    return new Promise((resolve) => server?.listen(path, () => resolve(path)));
  };

  it("resolves on the answer, with garbage around it", async () => {
    const path = await serve(
      (line) => `{"type":"x"}\n\xff\n${hello({ session: JSON.parse(line).session })}\n`,
    );
    await waitForHello(path, AbortSignal.timeout(5000));
  });

  it("ends with its signal while nobody answers", async () => {
    const path = await serve(() => "nothing\n");
    const stop = new AbortController();
    setTimeout(() => stop.abort(new Error("enough")), 100);
    await expect(waitForHello(path, stop.signal)).rejects.toThrow("enough");
  });

  it("ends with its signal while there is no socket", async () => {
    const stop = new AbortController();
    setTimeout(() => stop.abort(new Error("enough")), 100);
    await expect(waitForHello(join(folder, "none"), stop.signal)).rejects.toThrow();
  });
});
