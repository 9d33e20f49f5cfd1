/**
 * The symvirt layer: a read-only disk with this machine's node, the built package and the workloads,
 * mounted at /opt/symvirt in the guests. Apart from the image, so a code change costs seconds.
 */
import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { cp, mkdir, readdir, readFile, rm, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { SymvirtError } from "../errors.js";
import { type CacheEntry, cached } from "./cache.js";
import { cacheRoot, packageRoot } from "./paths.js";
import { run } from "./process.js";

/** Paths of the package that go in when they exist; the first two must. */
const PARTS = [
  "package.json",
  "dist",
  "bin",
  "build/Release/symvirt.node",
  "build/preload/libsymvirt.so",
  "build/workloads",
];
/** By-products of the workloads' build that no guest runs. */
const SKIPPED =
  /\/(?:CMakeFiles|CMakeCache\.txt|cmake_install\.cmake|CTestTestfile\.cmake|Makefile|Testing)(?:\/|$)|\.(?:o|d|map|d\.ts|tsbuildinfo)$/;

export const layerFile = (folder: string): string => join(folder, "layer.img");

/** Whether the package has its addon, without which no agent runs. */
export const hasAddon = (): boolean => existsSync(join(packageRoot, "build/Release/symvirt.node"));

interface LockFile {
  packages: Record<string, { version?: string; dev?: boolean; devOptional?: boolean; optional?: boolean }>;
}

/** Folders below node_modules that are needed at run time, by the lock file; pure. */
export function runtimePackages(lock: LockFile): { path: string; version: string }[] {
  return Object.entries(lock.packages)
    .filter(
      ([path, entry]) =>
        path.startsWith("node_modules/") &&
        entry.dev !== true &&
        entry.devOptional !== true &&
        entry.optional !== true,
    )
    .map(([path, entry]) => ({ path, version: entry.version ?? "" }));
}

/** Every file below a path, sorted, relative to `root`. */
async function filesBelow(root: string, path: string): Promise<string[]> {
  const info = await stat(join(root, path));
  if (SKIPPED.test(`/${path}`)) return [];
  if (!info.isDirectory()) return [path];
  const names = (await readdir(join(root, path))).sort();
  return (await Promise.all(names.map((name) => filesBelow(root, join(path, name))))).flat();
}

/** The layer of the package as it is built now. Throws a refusal when it has not been built. */
export async function symvirtLayer(say: (line: string) => void): Promise<CacheEntry> {
  if (!existsSync(join(packageRoot, "dist/cli/main.js")))
    throw new SymvirtError("refused", `symvirt is not built in "${packageRoot}"`, {
      hint: "run: npm run build",
    });
  const lock = JSON.parse(readFileSync(join(packageRoot, "package-lock.json"), "utf8")) as LockFile;
  const packages = runtimePackages(lock);
  const present = PARTS.filter((part) => existsSync(join(packageRoot, part)));
  const files = (await Promise.all(present.map((part) => filesBelow(packageRoot, part)))).flat();

  const head = createHash("sha256").update("layer 1\n");
  const node = await stat(process.execPath);
  head.update(
    `${process.execPath} ${process.version} ${node.size} ${node.mtimeMs}\n${JSON.stringify(packages)}\n`,
  );
  const hashOf = async (root: string): Promise<string> => {
    const whole = head.copy();
    for (const file of files) whole.update(`${file}\0`).update(await readFile(join(root, file)));
    return whole.digest("hex").slice(0, 16);
  };
  const hash = await hashOf(packageRoot);

  return cached({
    folder: join(cacheRoot(), "layers"),
    hash,
    keep: 3,
    say,
    build: async (folder) => {
      const tree = join(folder, "tree");
      await mkdir(join(tree, "bin"), { recursive: true });
      await cp(process.execPath, join(tree, "bin/node"));
      for (const file of files) {
        await mkdir(dirname(join(tree, file)), { recursive: true });
        await cp(join(packageRoot, file), join(tree, file));
      }
      // Somebody may have built meanwhile: what has this hash must have that content.
      if ((await hashOf(tree)) !== hash)
        throw new SymvirtError("refused", "symvirt was built anew while its layer was made", {
          hint: "try again when the build is over",
        });
      for (const { path } of packages)
        await cp(join(packageRoot, path), join(tree, path), {
          recursive: true,
          dereference: true,
          filter: (source) =>
            !SKIPPED.test(source.slice(packageRoot.length)) &&
            !source.endsWith(".cts") &&
            !source.endsWith(".mts"),
        });
      const kilobytes = Number((await run(["du", "-sk", "--apparent-size", tree])).split("\t")[0]);
      await run([
        "mke2fs",
        "-q",
        "-t",
        "ext4",
        "-O",
        "^has_journal",
        "-m",
        "0",
        "-d",
        tree,
        layerFile(folder),
        `${Math.ceil(kilobytes * 1.15) + 16384}k`,
      ]);
      await rm(tree, { recursive: true });
    },
  });
}
