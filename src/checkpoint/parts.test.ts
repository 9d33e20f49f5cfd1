/** The hosts' commands as a host runs them: real sh, zstd and coreutils. */
import { spawn, spawnSync } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { quote } from "../vmm/qemu/run-on-host.js";
import type { Part } from "./manifest.js";
import { partReadCommand } from "./part-read.js";
import { partResult, writerLife } from "./part-result.js";
import { partWriteCommand, resultOf } from "./part-write.js";

let folder: string;
let path: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "symvirt-part-"));
  path = join(folder, "vm1.ram.zst");
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** Compressible at both ends, not in the middle, and longer than what the reader holds back. */
const stream = Buffer.concat([
  Buffer.alloc(3_000_000, "page"),
  randomBytes(1_000_001),
  Buffer.alloc(500_000),
]);

function sh(script: string, input: Buffer = Buffer.alloc(0), env: NodeJS.ProcessEnv = process.env) {
  return spawnSync("sh", ["-c", script], { input, env, maxBuffer: 2 ** 26 });
}

function written(encoding: Part["encoding"] = "zstd", input = stream): Part {
  const { status, stderr } = sh(partWriteCommand({ path, encoding, level: 1 }), input);
  expect(stderr.toString()).toBe("");
  expect(status).toBe(0);
  return partResult(path, encoding) as Part;
}

/** Polls what another process brings about; fails by name when it does not. */
async function until<T>(what: string, look: () => T | undefined): Promise<T> {
  const end = performance.now() + 10_000;
  for (;;) {
    const found = look();
    if (found !== undefined) return found;
    if (performance.now() > end) throw new Error(`not within 10 s: ${what}`);
    await sleep(10);
  }
}

describe("writing a part", () => {
  it("stores the stream compressed, counted and hashed, for its owner alone", () => {
    const part = written();
    const file = readFileSync(path);
    expect(part).toEqual({
      file: "vm1.ram.zst",
      encoding: "zstd",
      rawBytes: stream.length,
      storedBytes: file.length,
      sha256: createHash("sha256").update(file).digest("hex"),
    });
    expect(file.length).toBeLessThan(stream.length / 2);
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(statSync(resultOf(path)).mode & 0o777).toBe(0o600);
    expect(readdirSync(folder).sort()).toEqual(["vm1.ram.zst", "vm1.ram.zst.result"]);
  });

  it("takes an empty stream, one that is not compressed, and a path that needs quoting", () => {
    expect(written("zstd", Buffer.alloc(0))).toMatchObject({ rawBytes: 0 });
    expect(written("none")).toMatchObject({ rawBytes: stream.length, storedBytes: stream.length });
    mkdirSync(join(folder, "a 'b' $c"));
    path = join(folder, "a 'b' $c", "x.zst");
    expect(written()).toMatchObject({ file: "x.zst", rawBytes: stream.length });
  });

  it("goes on in the background when it is detached, and is seen to live until it has ended", async () => {
    const script = partWriteCommand({ path, encoding: "zstd", level: 1, detached: true });
    // cat keeps the pipe when the command itself has ended, as QEMU would.
    const child = spawn("sh", ["-c", `cat | { sh -c ${quote(script)}; echo "ended $?" >&2; }`]);
    const [said] = (await once(child.stderr, "data")) as [Buffer];
    expect(said.toString()).toBe("ended 0\n");
    child.stdin.write(stream);
    await until("the writer is known", () => (writerLife(path) === "lives" ? true : undefined));
    expect(partResult(path, "zstd")).toBeUndefined();
    child.stdin.end(stream);
    const part = await until("the result", () => partResult(path, "zstd"));
    expect(part.rawBytes).toBe(2 * stream.length);
  });

  it("says that its writer was killed", async () => {
    const script = partWriteCommand({ path, encoding: "zstd", level: 1 });
    const child = spawn("sh", ["-c", script], { stdio: ["pipe", "ignore", "pipe"] });
    child.stdin.on("error", () => undefined);
    child.stdin.write("some");
    await until("the writer is known", () => (writerLife(path) === "lives" ? true : undefined));
    child.kill("SIGKILL");
    child.stderr.resume();
    child.stdin.end();
    // Its stages have ended too: they have the same stderr.
    await once(child, "close");
    expect(() => partResult(path, "zstd")).toThrow("the writer of vm1.ram.zst was killed");
  });

  it("names a stage that fails, and leaves no part", () => {
    const bin = join(folder, "bin");
    mkdirSync(bin);
    writeFileSync(
      join(bin, "zstd"),
      '#!/bin/sh\necho "zstd: allocation\\n \\"error\\" : not enough memory" >&2\nexit 11\n',
      {
        mode: 0o755,
      },
    );
    const env = { ...process.env, PATH: `${bin}:${process.env.PATH}` };
    const { status, stderr } = sh(partWriteCommand({ path, encoding: "zstd", level: 1 }), stream, env);
    expect(status).toBe(1);
    expect(stderr.toString()).toContain("failed in compress, status 11");
    expect(existsSync(path)).toBe(false);
    expect(() => partResult(path, "zstd")).toThrow(
      "writing vm1.ram.zst failed in the stage compress: zstd: allocation error : not enough memory",
    );
  });

  it("says that zstd is missing", () => {
    const bin = join(folder, "bin");
    mkdirSync(bin);
    for (const tool of [
      "sh",
      "dd",
      "tee",
      "sha256sum",
      "sync",
      "sed",
      "cut",
      "cat",
      "uname",
      "tr",
      "tail",
      "wc",
      "mv",
      "rm",
    ])
      sh(`ln -s "$(command -v ${tool})" '${bin}/${tool}'`);
    const env = { PATH: bin };
    expect(sh(partWriteCommand({ path, encoding: "zstd", level: 1 }), stream, env).status).toBe(1);
    expect(() => partResult(path, "zstd")).toThrow(
      expect.objectContaining({ hint: "install zstd on that host" }),
    );
  });

  it.skipIf(process.getuid?.() !== 0)("names a full disk (needs root, for a small tmpfs)", () => {
    const small = join(folder, "small");
    mkdirSync(small);
    expect(spawnSync("mount", ["-t", "tmpfs", "-o", "size=512k", "symvirt-test", small]).status).toBe(0);
    try {
      path = join(small, "vm1.ram.zst");
      const { status, stderr } = sh(partWriteCommand({ path, encoding: "zstd", level: 1 }), stream);
      expect(status).toBe(1);
      expect(stderr.toString()).toContain("No space left on device");
      expect(readdirSync(small)).toEqual(["vm1.ram.zst.result"]);
      expect(() => partResult(path, "zstd")).toThrow(
        /^the checkpoint store is full: writing vm1.ram.zst failed: /,
      );
    } finally {
      expect(spawnSync("umount", ["-l", small]).status).toBe(0);
    }
  });

  it("does not believe a result that is too large, garbage, or of another file", () => {
    written();
    writeFileSync(resultOf(path), `{"version":1,"ok":true,"rawBytes":1${" ".repeat(5000)}}`);
    expect(() => partResult(path, "zstd")).toThrow("cannot be read");
    writeFileSync(resultOf(path), "{}");
    expect(() => partResult(path, "zstd")).toThrow("cannot be read");
    writeFileSync(
      resultOf(path),
      JSON.stringify({ version: 1, ok: true, rawBytes: 1, storedBytes: 1, sha256: "0".repeat(64) }),
    );
    expect(() => partResult(path, "zstd")).toThrow("bytes here and 1 on the host that wrote it");
    const words = `\u001b[2J${"x".repeat(400)}`;
    writeFileSync(
      resultOf(path),
      JSON.stringify({ version: 1, ok: false, stage: "write", status: 1, words }),
    );
    expect(() => partResult(path, "zstd")).toThrow(
      /^writing vm1.ram.zst failed in the stage write: \?\[2Jx+…$/,
    );
  });

  it.each([0, 20, 1.5])("refuses the level %s", (level) => {
    expect(() => partWriteCommand({ path, encoding: "zstd", level })).toThrow("whole number");
  });
});

describe("reading a part", () => {
  it.each(["zstd", "none"] as const)("gives the stream back (%s)", (encoding) => {
    const part = written(encoding);
    const { status, stdout, stderr } = sh(partReadCommand(path, part));
    expect(stderr.toString()).toBe("");
    expect(status).toBe(0);
    expect(stdout.equals(stream)).toBe(true);
  });

  it("gives a short one and an empty one back", () => {
    for (const input of [Buffer.from("short"), Buffer.alloc(0)]) {
      const part = written("zstd", input);
      const { status, stdout } = sh(partReadCommand(path, part));
      expect(status).toBe(0);
      expect(stdout.equals(input)).toBe(true);
    }
  });

  it.each(["zstd", "none"] as const)("never gives the end of a damaged part (%s)", (encoding) => {
    const part = written(encoding);
    const file = readFileSync(path);
    for (const at of [0, 100, Math.floor(file.length / 2), file.length - 1]) {
      const damaged = Buffer.from(file);
      damaged[at] = (damaged[at] ?? 0) ^ 1;
      writeFileSync(path, damaged);
      const { status, stdout, stderr } = sh(partReadCommand(path, part));
      expect(status).toBe(1);
      expect(stderr.toString()).toContain("its SHA-256 is not that of the manifest");
      expect(stdout.length).toBeLessThan(stream.length);
    }
  });

  it("refuses a missing one and one of another length, with nothing on stdout", () => {
    const part = written();
    writeFileSync(path, readFileSync(path).subarray(1));
    const cut = sh(partReadCommand(path, part));
    rmSync(path);
    const missing = sh(partReadCommand(path, part));
    for (const { status, stdout } of [cut, missing]) {
      expect(status).toBe(1);
      expect(stdout.length).toBe(0);
    }
    expect(cut.stderr.toString()).toContain("bytes that the manifest says");
    expect(missing.stderr.toString()).toContain("it is not there");
  });

  it("fails when its reader goes away, and does not call the part damaged", () => {
    const part = written();
    const { stderr } = sh(`{ ${partReadCommand(path, part)} } | head -c 10 >/dev/null`);
    expect(stderr.toString()).toMatch(/decode ended with status/);
  });
});
