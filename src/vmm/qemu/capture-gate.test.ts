import { execFile } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { canBeHeld, heldCommand, unwanted, walkMs } from "./capture-gate.js";
import { quote } from "./run-on-host.js";

let folder: string;
beforeEach(() => (folder = mkdtempSync(join(tmpdir(), "symvirt-gate-"))));
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const at = (name: string) => join(folder, name);
const appears = (name: string) =>
  vi.waitFor(() => expect(existsSync(at(name))).toBe(true), { timeout: 20_000, interval: 5 });

/** As QEMU does it: `writer` has the other end of the pipe from the begin. Resolves when it has written all. */
function streamFrom(writer: string): Promise<void> {
  const command = heldCommand(`cat >${quote(at("kept"))}; : >${quote(at("end"))}`, at("gate"));
  return new Promise((resolve, reject) => {
    execFile("sh", ["-c", `{ ${writer}; } | sh -c ${quote(command)}`], (error) =>
      error === null ? resolve() : reject(new Error(error.message)),
    );
  });
}
const isFull = "sleep 0.5";

describe("the gate of a capture", () => {
  it("holds the writer until it is let go, and gives all that it wrote to the sink", async () => {
    const ended = streamFrom(`${isFull}; printf HEAD; : >${quote(at("flushed"))}; head -c 300000 /dev/zero`);
    await new Promise((resolve) => setTimeout(resolve, 1200));
    expect(existsSync(at("flushed"))).toBe(false);
    writeFileSync(at("gate"), "x");
    await appears("end");
    await ended;
    const kept = readFileSync(at("kept"));
    expect([kept.length, kept.toString("latin1", 0, 4)]).toEqual([300_004, "HEAD"]);
    expect(existsSync(at("gate"))).toBe(false);
  });

  it("keeps nothing of a writer that was faster than the pipe was filled", async () => {
    const slow = `printf HEAD; : >${quote(at("flushed"))}; sleep 1; head -c 300000 /dev/zero`;
    const ended = streamFrom(slow);
    await ended;
    expect(existsSync(at("kept"))).toBe(false);
  });

  it("keeps nothing when it is told so", async () => {
    const ended = streamFrom(`${isFull}; printf HEAD; head -c 300000 /dev/zero`);
    writeFileSync(unwanted(at("gate")), "x");
    await ended;
    await vi.waitFor(() => expect(existsSync(unwanted(at("gate")))).toBe(false), { timeout: 20_000 });
    await appears("end");
    expect(readFileSync(at("kept"))).toHaveLength(0);
  });

  it("has begun the sink before it lets go", async () => {
    const ended = streamFrom(`${isFull}; printf HEAD`);
    await appears("kept");
    expect(readFileSync(at("kept"))).toHaveLength(0);
    writeFileSync(at("gate"), "x");
    await appears("end");
    await ended;
    expect(readFileSync(at("kept"), "latin1")).toBe("HEAD");
  });

  it("reads on when the sink has ended", async () => {
    const command = heldCommand("exit 1", at("gate"));
    writeFileSync(at("gate"), "x");
    const ended = new Promise((resolve) =>
      execFile("sh", ["-c", `{ ${isFull}; head -c 3000000 /dev/zero; } | sh -c ${quote(command)}`], resolve),
    );
    expect(await ended).toBeNull();
  });

  it("is for the QEMU whose source says that it can be held", () => {
    const version = (major: number, minor: number) => ({ qemu: { major, minor, micro: 0 }, package: "" });
    expect([canBeHeld(version(7, 2)), canBeHeld(version(8, 2)), canBeHeld(version(9, 0))]).toEqual([
      true,
      false,
      false,
    ]);
    expect([walkMs(2 ** 30), walkMs(2 ** 40)]).toEqual([1500, 20_000]);
  });
});
