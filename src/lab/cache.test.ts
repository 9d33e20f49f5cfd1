import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type CacheOptions, cached } from "./cache.js";
import { runtimePackages } from "./layer.js";

let folder: string;
beforeEach(() => {
  folder = join(mkdtempSync(join(tmpdir(), "symvirt-cache-")), "kind");
});
afterEach(() => rmSync(join(folder, ".."), { recursive: true }));

const options = (hash: string, build: CacheOptions["build"]): CacheOptions => ({
  folder,
  hash,
  build,
  keep: 2,
  say: () => undefined,
});
const write = (text: string) => async (path: string) => writeFileSync(join(path, "file"), text);

describe("cached", () => {
  it("builds once, for two callers at once and for later ones", async () => {
    let builds = 0;
    const slow = async (path: string): Promise<void> => {
      builds++;
      await delay(100);
      writeFileSync(join(path, "file"), "x");
    };
    const both = await Promise.all([cached(options("a", slow)), cached(options("a", slow))]);
    expect(both.map((entry) => entry.built).sort()).toEqual([false, true]);
    expect((await cached(options("a", slow))).built).toBe(false);
    expect(builds).toBe(1);
    expect(readFileSync(join(folder, "a", "file"), "utf8")).toBe("x");
  });

  it("counts neither a failed nor an interrupted build", async () => {
    const failing = cached(
      options("a", async (path) => {
        writeFileSync(join(path, "half"), "");
        throw new Error("no room");
      }),
    );
    await expect(failing).rejects.toThrow("no room");
    expect(existsSync(join(folder, "a"))).toBe(false);
    // What a killed build leaves.
    mkdirSync(join(folder, ".partial"));
    writeFileSync(join(folder, ".partial", "half"), "");
    const entry = await cached(options("a", write("whole")));
    expect(readdirSync(entry.path)).toEqual(["file"]);
  });

  it("keeps the newest entries only", async () => {
    for (const hash of ["a", "b", "c"]) {
      await cached(options(hash, write(hash)));
      await delay(10);
    }
    expect(readdirSync(folder).filter((name) => !name.startsWith("."))).toEqual(["b", "c"]);
  });
});

describe("runtimePackages", () => {
  it("leaves out the project itself, development and optional packages", () => {
    const packages = {
      "": { version: "1.0.0" },
      "node_modules/zod": { version: "4.0.0" },
      "node_modules/a/node_modules/b": { version: "2.0.0" },
      "node_modules/vitest": { version: "4.0.0", dev: true },
      "node_modules/maybe": { version: "4.0.0", optional: true },
      "node_modules/both": { version: "4.0.0", devOptional: true },
    };
    expect(runtimePackages({ packages }).map((one) => one.path)).toEqual([
      "node_modules/zod",
      "node_modules/a/node_modules/b",
    ]);
  });
});
