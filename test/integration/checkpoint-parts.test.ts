/** A QEMU's own stream into a part and back, by the hosts' commands. Without a guest inside. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Part } from "../../src/checkpoint/manifest.js";
import { partReadCommand } from "../../src/checkpoint/part-read.js";
import { partResult } from "../../src/checkpoint/part-result.js";
import { partWriteCommand } from "../../src/checkpoint/part-write.js";
import { QemuNest } from "../support/empty-qemu.js";

const nest = new QemuNest();
const folder = mkdtempSync(join(tmpdir(), "symvirt-parts-"));
const path = join(folder, "vm1.ram.zst");
let part: Part;
const signal = () => AbortSignal.timeout(30_000);

async function until<T>(what: string, look: () => Promise<T | undefined> | T | undefined): Promise<T> {
  const end = performance.now() + 30_000;
  for (;;) {
    const found = await look();
    if (found !== undefined) return found;
    if (performance.now() > end) throw new Error(`not within 30 s: ${what}`);
    await sleep(20);
  }
}

beforeAll(async () => {
  const source = await nest.start("source", ["-S"]);
  await source.driver.close();
  const session = source.session();
  const uri = `exec:${partWriteCommand({ path, encoding: "zstd", level: 1, detached: true })}`;
  await session.execute("migrate", { uri }, signal());
  await until("QEMU has sent all", async () => {
    const { status } = await session.execute("query-migrate", {}, signal());
    if (status === "failed") throw new Error("the migration failed");
    return status === "completed" ? true : undefined;
  });
  part = await until("the part's result", () => partResult(path, "zstd"));
  await session.close();
});
afterAll(async () => {
  await nest.end();
  rmSync(folder, { recursive: true, force: true });
});

/** Status of a QEMU that was started with this part as its incoming stream, once it is no longer loading. */
async function loaded(name: string): Promise<string> {
  const qemu = await nest.start(name, ["-S", "-incoming", `exec:${partReadCommand(path, part)}`]);
  return until("the stream is loaded", async () => {
    const { status } = await qemu.driver.inspect(signal());
    return status === "inmigrate" ? undefined : status;
  });
}

describe("a QEMU's stream", () => {
  it("is counted, compressed, and loaded by another QEMU, more than once", async () => {
    expect(part.storedBytes).toBe(readFileSync(path).length);
    expect(part.rawBytes).toBeGreaterThan(part.storedBytes);
    expect(await loaded("first")).toMatch(/^(paused|prelaunch)$/);
    expect(await loaded("second")).toMatch(/^(paused|prelaunch)$/);
  });

  it("of a damaged part does not become a VM", async () => {
    const file = readFileSync(path);
    const at = Math.floor(file.length / 2);
    file[at] = (file[at] ?? 0) ^ 1;
    writeFileSync(path, file);
    // QEMU ends by itself when its incoming stream breaks off.
    await expect(loaded("damaged")).rejects.toThrow();
  });
});
