/** What the guest image is made of. Its hash names the cached image: any change here builds a new one. */
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { SymvirtError } from "../errors.js";
import { guestFiles } from "./paths.js";
import { run, runForResult } from "./process.js";

/** Raise it when src/lab/image.ts makes another image of the same recipe. */
const FORMAT = 1;

export interface Archive {
  suite: string;
  mirror: string;
  /** Path of the keyring that signs the archive; undefined leaves it to debootstrap. */
  keyring: string | undefined;
  proxy: string | undefined;
}

export interface ImageRecipe {
  format: number;
  archive: Archive;
  packages: string[];
  /** Loaded by the initrd before the root disk can be mounted; their dependencies come along. */
  rootModules: string[];
  /** Kernel modules kept in the image (dpkg path patterns below kernel/); the rest is not unpacked. */
  keptModules: string[];
  /** Contents of src/lab/guest by file name. */
  guest: Record<string, string>;
}

/** No compiler and no systemd on the boot path: Open MPI's runtime, verbs, ssh, and what node needs. */
export const PACKAGES = [
  "linux-image-amd64",
  "openmpi-bin",
  "openssh-server",
  "openssh-client",
  "rdma-core",
  "ibverbs-providers",
  "ibverbs-utils",
  "librdmacm1",
  "iproute2",
  "iputils-ping",
  "kmod",
  "procps",
  "busybox-static",
  "libstdc++6",
  "libatomic1",
];

const ROOT_MODULES = ["virtio_pci", "virtio_blk", "ext4"];

const KEPT_MODULES = [
  "arch/*",
  "crypto/*",
  "lib/*",
  "fs/ext4/*",
  "fs/jbd2/*",
  "fs/mbcache*",
  "net/core/*",
  "net/ipv4/*",
  "net/ipv6/*",
  "drivers/block/virtio*",
  "drivers/char/virtio*",
  "drivers/char/hw_random/*",
  "drivers/infiniband/*",
  "drivers/net/ethernet/intel/e1000e/*",
  "drivers/net/net_failover*",
  "drivers/net/virtio*",
  "drivers/nvme/*",
  "drivers/virtio/*",
];

/** Picks the archive of this suite out of `apt-get indextargets` lines "uri|suite|component|signed-by"; pure. */
export function pickArchive(
  lines: readonly string[],
  suite: string,
): { mirror: string; keyring: string | undefined } | undefined {
  for (const line of lines) {
    const [mirror, release, component, keyring] = line.split("|");
    if (release !== suite || component !== "main" || mirror === undefined) continue;
    if (!/^(?:https?|file):/.test(mirror)) continue;
    // Without a Signed-By option apt leaves the placeholder as it is.
    return { mirror: mirror.replace(/\/+$/, ""), keyring: keyring?.startsWith("/") ? keyring : undefined };
  }
  return undefined;
}

const DEFAULT_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg";

/** The Debian archive this machine is set up to use, from apt's own configuration. */
export async function findArchive(): Promise<Archive> {
  const suite = /^VERSION_CODENAME=(\S+)$/m.exec(readFileSync("/etc/os-release", "utf8"))?.[1] ?? "bookworm";
  const targets = await run([
    "apt-get",
    "indextargets",
    "--format",
    "$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(SIGNED_BY)",
    "Created-By: Packages",
  ]);
  const found = pickArchive(targets.split("\n"), suite);
  if (found === undefined)
    throw new SymvirtError("refused", `apt has no http archive with suite "${suite}" and component "main"`, {
      hint: "add one to /etc/apt/sources.list.d; the guest image is made from it",
    });
  const proxy = await runForResult(["apt-config", "dump", "--format", "%v", "Acquire::http::Proxy"]);
  const keyring = found.keyring ?? (existsSync(DEFAULT_KEYRING) ? DEFAULT_KEYRING : undefined);
  return { suite, mirror: found.mirror, keyring, proxy: proxy.stdout.trim() || undefined };
}

/** The recipe on this machine, now. */
export async function imageRecipe(): Promise<ImageRecipe> {
  const guest: Record<string, string> = {};
  for (const name of readdirSync(guestFiles).sort())
    guest[name] = readFileSync(join(guestFiles, name), "utf8");
  return {
    format: FORMAT,
    archive: await findArchive(),
    packages: PACKAGES,
    rootModules: ROOT_MODULES,
    keptModules: KEPT_MODULES,
    guest,
  };
}

/** 16 hex digits over everything that decides what is in the image (how it is downloaded does not); pure. */
export function recipeHash(recipe: ImageRecipe): string {
  const { archive, ...rest } = recipe;
  const decisive = { ...rest, suite: archive.suite, mirror: archive.mirror };
  return createHash("sha256").update(JSON.stringify(decisive)).digest("hex").slice(0, 16);
}
