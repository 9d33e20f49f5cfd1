/** What must hold before a lab is made; every refusal here comes before anything is created. */
import { accessSync, constants, existsSync } from "node:fs";
import { mkdir, statfs } from "node:fs/promises";
import { delimiter, join } from "node:path";
import { SymvirtError } from "../errors.js";
import { checkLabName, hostName, MAX_HOSTS, MAX_VMS } from "./addresses.js";
import { imageRecipe, recipeHash } from "./image-recipe.js";
import { listNamespaces } from "./network.js";
import type { LabPaths } from "./paths.js";
import { toolEnvironment } from "./process.js";

/** Commands the lab runs, with the Debian package each comes from. */
const COMMANDS: readonly (readonly [command: string, debianPackage: string])[] = [
  ["qemu-system-x86_64", "qemu-system-x86"],
  ["qemu-img", "qemu-utils"],
  ["debootstrap", "debootstrap"],
  ["ip", "iproute2"],
  ["ssh", "openssh-client"],
  ["mke2fs", "e2fsprogs"],
  ["cpio", "cpio"],
  ["xz", "xz-utils"],
  ["flock", "util-linux"],
  ["modprobe", "kmod"],
];

/** Debian packages of commands that are not in $PATH. */
export function missingPackages(env: NodeJS.ProcessEnv = toolEnvironment()): string[] {
  const folders = (env.PATH ?? "").split(delimiter).filter(Boolean);
  const isThere = (command: string): boolean =>
    folders.some((folder) => {
      try {
        accessSync(join(folder, command), constants.X_OK);
        return true;
      } catch {
        // Not in this folder; the next one may have it.
        return false;
      }
    });
  return [...new Set(COMMANDS.filter(([command]) => !isThere(command)).map(([, name]) => name))];
}

/** First build of the image with its temporary tree, and room for the guests' disks to grow. */
const BUILD_BYTES = 3 * 2 ** 30;
const RUN_BYTES = 2 ** 29;

/** Nearest folder of a path that exists, to ask for its disk room. */
function existing(path: string): string {
  let folder = path;
  while (!existsSync(folder)) folder = join(folder, "..");
  return folder;
}

export interface PreflightOptions {
  lab: string;
  vms: number;
  hosts: number;
  cardless: readonly string[];
  paths: LabPaths;
  cache: string;
}

/** Throws a refusal (exit 3) or usage error (exit 2) that says what to do. */
export async function preflight(options: PreflightOptions): Promise<void> {
  const { vms, hosts, cardless } = options;
  const lab = checkLabName(options.lab);
  if (vms < 1 || vms > MAX_VMS) throw new SymvirtError("usage", `A lab has 1 to ${MAX_VMS} VMs, not ${vms}`);
  if (hosts < vms || hosts > MAX_HOSTS)
    throw new SymvirtError("usage", `A lab of ${vms} VMs has ${vms} to ${MAX_HOSTS} hosts, not ${hosts}`, {
      hint: "each VM starts on a host of its own",
    });
  const names = Array.from({ length: hosts }, (_, i) => hostName(i + 1));
  const stranger = cardless.find((host) => !names.includes(host));
  if (stranger !== undefined)
    throw new SymvirtError("usage", `Unknown host "${stranger}" in --cardless`, {
      hint: `this lab would have ${names.join(", ")}`,
    });
  checkSocketPaths(options);

  if (process.getuid?.() !== 0)
    throw new SymvirtError("refused", "A lab needs root: it makes network namespaces and taps", {
      hint: "run it with sudo",
    });
  const missing = missingPackages();
  if (missing.length > 0)
    throw new SymvirtError("refused", `Missing Debian packages: ${missing.join(", ")}`, {
      hint: `npm run setup, or: apt-get install --no-install-recommends ${missing.join(" ")}`,
    });
  if (!existsSync("/dev/net/tun"))
    throw new SymvirtError("refused", "This machine has no /dev/net/tun, so a VM can have no network", {
      hint: "modprobe tun",
    });
  const leftOver = await listNamespaces(lab);
  if (existsSync(options.paths.run) || leftOver.length > 0)
    throw new SymvirtError("refused", `There is a lab "${lab}" already, or what is left of one`, {
      hint: `symvirt lab down${lab === "lab" ? "" : ` --name ${lab}`}, or choose another name by --name`,
    });
  await checkRoom(options);
}

function checkSocketPaths({ hosts, vms, paths }: PreflightOptions): void {
  const longest = join(paths.run, hostName(hosts), `vm${vms}.channel`);
  if (longest.length > 107)
    throw new SymvirtError(
      "usage",
      `Socket path "${longest}" is longer than the 107 bytes a unix socket can have`,
      {
        hint: "use a shorter SYMVIRT_LAB_ROOT or lab name",
      },
    );
}

/** Of today's recipe: one of an older is no use. */
const hasImage = async (cache: string): Promise<boolean> =>
  existsSync(join(cache, "images", recipeHash(await imageRecipe())));

async function checkRoom({ cache, vms }: PreflightOptions): Promise<void> {
  const folder = existing(cache);
  const room = await statfs(folder);
  const free = room.bavail * room.bsize;
  const needed = ((await hasImage(cache)) ? 0 : BUILD_BYTES) + vms * RUN_BYTES;
  if (free < needed)
    throw new SymvirtError(
      "refused",
      `Not enough room in "${folder}": ${Math.floor(free / 2 ** 20)} MiB free, ${Math.ceil(needed / 2 ** 20)} MiB needed`,
      { hint: "make room there, or point XDG_CACHE_HOME at another disk" },
    );
  await mkdir(cache, { recursive: true });
}
