/** Builds the guest image: a Debian tree by debootstrap, dressed for the lab, as a disk with kernel and initrd beside it. */
import { chmod, copyFile, mkdir, readdir, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import {
  hostManagementAddress,
  hostName,
  MAX_HOSTS,
  MAX_VMS,
  vmManagementAddress,
  vmName,
} from "./addresses.js";
import { type CacheEntry, cached } from "./cache.js";
import { type ImageRecipe, imageRecipe, recipeHash } from "./image-recipe.js";
import { extractElfKernel, makeInitrd } from "./kernel.js";
import { cacheRoot } from "./paths.js";
import { run } from "./process.js";

/** Files of a built image. */
export interface GuestImage {
  root: string;
  kernel: string;
  initrd: string;
  sshKey: string;
}

export const imageFiles = (folder: string): GuestImage => ({
  root: join(folder, "root.img"),
  kernel: join(folder, "kernel"),
  initrd: join(folder, "initrd"),
  sshKey: join(folder, "ssh-key"),
});

/** Virtual size of a guest's disk; blocks never written take no room. */
const DISK_SIZE = "4G";

/** The guest image of the present recipe, built now if the cache has none. */
export async function guestImage(say: (line: string) => void, signal?: AbortSignal): Promise<CacheEntry> {
  const recipe = await imageRecipe();
  return cached({
    folder: join(cacheRoot(), "images"),
    hash: recipeHash(recipe),
    keep: 2,
    say,
    build: async (folder) => {
      say(`building the guest image (once; ${recipe.archive.suite} from ${recipe.archive.mirror})`);
      await buildImage(recipe, folder, say, signal);
    },
  });
}

async function buildImage(
  recipe: ImageRecipe,
  folder: string,
  say: (line: string) => void,
  signal?: AbortSignal,
): Promise<void> {
  const tree = join(folder, "tree");
  const options = signal === undefined ? {} : { signal };
  const files = imageFiles(folder);
  const timed = async (what: string, step: () => Promise<unknown>): Promise<void> => {
    const started = performance.now();
    await step();
    say(`  ${what}: ${((performance.now() - started) / 1000).toFixed(1)} s`);
  };
  await timed("debootstrap", () => bootstrap(recipe, tree, options));
  await timed("guest set-up", () => dress(recipe, tree, files.sshKey));
  const release = (await readdir(join(tree, "lib/modules")))[0] ?? "";
  await timed("kernel and initrd", async () => {
    const vmlinuz = join(tree, "boot", `vmlinuz-${release}`);
    if (!(await extractElfKernel(vmlinuz, files.kernel))) await copyFile(vmlinuz, files.kernel);
    const scratch = join(folder, "initrd.d");
    await makeInitrd(tree, {
      kernelRelease: release,
      modules: recipe.rootModules,
      init: recipe.guest["initrd-init"] ?? "",
      scratch,
      initrd: files.initrd,
    });
    await rm(scratch, { recursive: true });
  });
  await timed("disk", async () => {
    for (const path of ["boot", "var/cache/apt", "var/lib/apt/lists", "debootstrap"])
      await rm(join(tree, path), { recursive: true, force: true });
    await mkdir(join(tree, "var/cache/apt/archives/partial"), { recursive: true });
    // No journal: a guest's disk is thrown away with the lab, and mke2fs need not write one.
    await run(
      ["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-d", tree, files.root, DISK_SIZE],
      options,
    );
    await rm(tree, { recursive: true });
  });
}

async function bootstrap(
  recipe: ImageRecipe,
  tree: string,
  options: { signal?: AbortSignal },
): Promise<void> {
  await mkdir(join(tree, "etc/dpkg/dpkg.cfg.d"), { recursive: true });
  const excluded = [
    "/usr/share/doc/*",
    "/usr/share/man/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/lib/modules/*/kernel/*",
  ];
  const dpkg = [
    "force-unsafe-io",
    ...excluded.map((path) => `path-exclude=${path}`),
    ...recipe.keptModules.map((path) => `path-include=/lib/modules/*/kernel/${path}`),
  ];
  await writeFile(join(tree, "etc/dpkg/dpkg.cfg.d/symvirt-lab"), `${dpkg.join("\n")}\n`);
  const { archive } = recipe;
  const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive", LC_ALL: "C", INITRD: "No" };
  await run(
    [
      // Namespaces of its own, which end with us in whatever way we end: an interrupted debootstrap
      // leaves no mount and no process behind.
      ...["setpriv", "--pdeathsig", "KILL"],
      ...["unshare", "--mount", "--pid", "--fork", "--kill-child"],
      "debootstrap",
      "--variant=minbase",
      `--include=${recipe.packages.join(",")}`,
      ...(archive.keyring === undefined ? [] : [`--keyring=${archive.keyring}`]),
      archive.suite,
      tree,
      archive.mirror,
    ],
    {
      ...options,
      killSignal: "SIGKILL",
      env: archive.proxy === undefined ? env : { ...env, http_proxy: archive.proxy },
    },
  );
}

/** Puts the lab's own files into the tree. */
async function dress(recipe: ImageRecipe, tree: string, sshKey: string): Promise<void> {
  const put = async (path: string, text: string, mode: number): Promise<void> => {
    await mkdir(join(tree, path, ".."), { recursive: true });
    await writeFile(join(tree, path), text);
    await chmod(join(tree, path), mode);
  };
  const guest = (name: string): string => recipe.guest[name] ?? "";
  const own = "usr/lib/symvirt-lab";
  for (const name of ["boot", "fabric", "agent", "sshd"]) await put(`${own}/${name}`, guest(name), 0o755);
  await symlink("/bin/busybox", join(tree, own, "init"));
  await put("etc/inittab", guest("inittab"), 0o644);
  await put("etc/symvirt/hooks.d/post-attach", guest("post-attach"), 0o755);
  await put("usr/local/bin/symvirt", guest("symvirt"), 0o755);
  await put("etc/ssh/sshd_config", guest("sshd_config"), 0o644);
  await put("etc/ssh/ssh_config", guest("ssh_config"), 0o644);
  await put("var/log/symvirt-agent.log", "", 0o644);
  await mkdir(join(tree, "opt/symvirt"), { recursive: true });

  const hosts = ["127.0.0.1 localhost", "::1 localhost ip6-localhost"];
  for (let n = 1; n <= MAX_VMS; n++) hosts.push(`${vmManagementAddress(n)} ${vmName(n)}`);
  for (let i = 1; i <= MAX_HOSTS; i++) hosts.push(`${hostManagementAddress(i)} ${hostName(i)}`);
  await put("etc/hosts", `${hosts.join("\n")}\n`, 0o644);

  const keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "symvirt-lab", "-f"];
  for (const name of ["ssh_host_ed25519_key", "ssh_host_rsa_key", "ssh_host_ecdsa_key"])
    for (const suffix of ["", ".pub"]) await rm(join(tree, "etc/ssh", name + suffix), { force: true });
  await run([...keygen, join(tree, "etc/ssh/ssh_host_ed25519_key")]);
  await run([...keygen, sshKey]);
  const home = join(tree, "root/.ssh");
  await mkdir(home, { recursive: true, mode: 0o700 });
  await copyFile(sshKey, join(home, "id_ed25519"));
  await chmod(join(home, "id_ed25519"), 0o600);
  await copyFile(`${sshKey}.pub`, join(home, "authorized_keys"));
}
