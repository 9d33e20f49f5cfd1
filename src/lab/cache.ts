/** Content-addressed results that take long to make: made once, complete or not there. */
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, readdir, rename, rm, stat, utimes } from "node:fs/promises";
import { join } from "node:path";
import { SymvirtError } from "../errors.js";

export interface CacheEntry {
  path: string;
  /** False when an earlier run had made it. */
  built: boolean;
  ms: number;
}

/**
 * Holds an exclusive lock while `body` runs. The lock belongs to a flock(1) child that lives as long
 * as its stdin: it ends with this process in whatever way that ends, so no stale lock is possible.
 */
async function withLock<T>(lockFile: string, onWait: () => void, body: () => Promise<T>): Promise<T> {
  const holder = spawn("flock", [lockFile, "sh", "-c", "echo locked; cat"], {
    // Ctrl-C at the terminal is for us: the lock is held until what was begun has ended.
    detached: true,
    stdio: ["pipe", "pipe", "inherit"],
  });
  const waiting = setTimeout(onWait, 500);
  const ended = new Promise<void>((resolve) => holder.once("close", () => resolve()));
  try {
    await new Promise<void>((resolve, reject) => {
      holder.once("error", reject);
      holder.once("close", () =>
        reject(new SymvirtError("internal", `Cannot lock "${lockFile}" with flock`)),
      );
      holder.stdout.once("data", () => resolve());
    });
    clearTimeout(waiting);
    return await body();
  } finally {
    clearTimeout(waiting);
    holder.stdin.end();
    await ended;
  }
}

export interface CacheOptions {
  /** Folder of this kind of entry, e.g. ~/.cache/symvirt/images. */
  folder: string;
  hash: string;
  /** Fills an empty folder. What it leaves in there after a failure never counts. */
  build: (folder: string) => Promise<void>;
  /** How many entries stay when a new one has been built, this one included. */
  keep: number;
  say: (line: string) => void;
}

/** The entry of this hash, built now if need be; one builder at a time over all processes. */
export async function cached(options: CacheOptions): Promise<CacheEntry> {
  const { folder, hash, say } = options;
  const path = join(folder, hash);
  const started = performance.now();
  const done = async (built: boolean): Promise<CacheEntry> => {
    const now = new Date();
    await utimes(path, now, now);
    return { path, built, ms: performance.now() - started };
  };
  if (existsSync(path)) return done(false);
  await mkdir(folder, { recursive: true });
  return withLock(
    join(folder, ".lock"),
    () => say(`waiting for another build in ${folder}`),
    async () => {
      if (existsSync(path)) return done(false);
      // Under the lock nobody else builds: what has this name is left from an interrupted build.
      const partial = join(folder, ".partial");
      await rm(partial, { recursive: true, force: true });
      await mkdir(partial);
      try {
        await options.build(partial);
        await rename(partial, path);
      } finally {
        await rm(partial, { recursive: true, force: true });
      }
      const entry = await done(true);
      await prune(folder, options.keep);
      return entry;
    },
  );
}

/** Removes the entries used longest ago. Labs hold hard links to what they use, so none is hurt. */
async function prune(folder: string, keep: number): Promise<void> {
  const names = (await readdir(folder)).filter((name) => !name.startsWith("."));
  const aged = await Promise.all(
    names.map(async (name) => ({ name, used: (await stat(join(folder, name))).mtimeMs })),
  );
  aged.sort((a, b) => b.used - a.used);
  for (const { name } of aged.slice(keep)) await rm(join(folder, name), { recursive: true, force: true });
}
