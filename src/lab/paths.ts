/** Where the lab keeps things: the cache (images, layers, disks) and the run folder (sockets, cluster file). */
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

/** ${XDG_CACHE_HOME:-~/.cache}/symvirt */
export function cacheRoot(env: NodeJS.ProcessEnv = process.env): string {
  const base = env.XDG_CACHE_HOME;
  return join(base?.startsWith("/") ? base : join(homedir(), ".cache"), "symvirt");
}

/** Folder of all labs' run folders: $SYMVIRT_LAB_ROOT, else /run/symvirt. */
export function labRoot(env: NodeJS.ProcessEnv = process.env): string {
  const root = env.SYMVIRT_LAB_ROOT;
  return root?.startsWith("/") ? root : "/run/symvirt";
}

export interface LabPaths {
  /** Run folder of this lab; its existence means "there is a lab of this name". */
  run: string;
  cluster: string;
  state: string;
  /** Disks of this lab's VMs, in the cache folder since /run may be small. */
  disks: string;
}

export function labPaths(lab: string, env: NodeJS.ProcessEnv = process.env): LabPaths {
  const run = join(labRoot(env), lab);
  return {
    run,
    cluster: join(run, "cluster.yaml"),
    state: join(run, "state"),
    disks: join(cacheRoot(env), "labs", lab),
  };
}

/** The installed package (or the source tree): the folder with package.json. Same from src/lab and dist/lab. */
export const packageRoot: string = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

/** Scripts that go into the guest; scripts/build.sh copies them beside the compiled code. */
export const guestFiles: string = fileURLToPath(new URL("./guest/", import.meta.url));
