/** `lab down`: leaves no process, namespace, socket or disk of the lab, whatever state it is in. */
import { existsSync, readdirSync } from "node:fs";
import { readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { SymvirtError } from "../errors.js";
import { startTimeOf } from "../controller/state/process-identity.js";
import { checkLabName } from "./addresses.js";
import { openLab } from "./lab-cluster.js";
import { deleteNetwork, listNamespaces, namespacePids } from "./network.js";
import { labPaths } from "./paths.js";

export interface LabDownOptions {
  name?: string;
  say?: (line: string) => void;
}

/**
 * Takes a lab down. Idempotent, and works on what a crashed `lab up` left: it goes by the lab's
 * pid files and by what lives in the namespaces of that name, not by the cluster file alone.
 * Returns false when there was nothing to take down.
 */
export async function labDown(options: LabDownOptions = {}): Promise<boolean> {
  const name = checkLabName(options.name ?? "lab");
  const say = options.say ?? (() => undefined);
  const paths = labPaths(name);
  if (process.getuid?.() !== 0)
    throw new SymvirtError("refused", "Taking a lab down needs root", { hint: "run it with sudo" });
  const namespaces = await listNamespaces(name);
  const disks = [...new Set([paths.disks, recordedDisks(paths.cluster)])].filter((path) => existsSync(path));
  if (namespaces.length === 0 && disks.length === 0 && !existsSync(paths.run)) {
    say(`lab "${name}": nothing to take down`);
    return false;
  }
  const pids = new Set(await pidsOfFiles(paths.run));
  for (const namespace of namespaces) for (const pid of await namespacePids(namespace)) pids.add(pid);
  await endProcesses([...pids]);
  await deleteNetwork(name);
  for (const folder of disks) await rm(folder, { recursive: true, force: true });
  await rm(paths.run, { recursive: true, force: true });
  say(`lab "${name}" is down: ${pids.size} processes, ${namespaces.length} namespaces`);
  return true;
}

/** The disks folder written down at `lab up`, which may have had another cache folder. */
function recordedDisks(cluster: string): string {
  try {
    return openLab(cluster).lab.disks;
  } catch {
    // No readable cluster file: `lab up` did not get that far, so its disks are where they are by default.
    return "";
  }
}

/** Pids of this lab's pid files that still are a QEMU started with that pid file. */
async function pidsOfFiles(run: string): Promise<number[]> {
  const pids: number[] = [];
  const hosts = existsSync(run) ? readdirSync(run).filter((entry) => /^h\d+$/.test(entry)) : [];
  for (const host of hosts)
    for (const entry of readdirSync(join(run, host)).filter((file) => file.endsWith(".pid"))) {
      const path = join(run, host, entry);
      const pid = Number((await readFile(path, "utf8")).trim());
      const words = (await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "")).split("\0");
      if (words.includes(path)) pids.push(pid);
    }
  return pids;
}

/** One that nobody waits for (a container's first process may not) holds nothing any more. */
const isAlive = (pid: number): boolean => startTimeOf(pid) !== undefined;

function send(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch (cause) {
    // It may have ended since it was listed.
    if ((cause as NodeJS.ErrnoException).code !== "ESRCH") throw cause;
  }
}

/** SIGKILL: the disks go with the lab, so no guest has anything to save. */
async function endProcesses(pids: readonly number[]): Promise<void> {
  for (const pid of pids) send(pid, "SIGKILL");
  const deadline = performance.now() + 10_000;
  for (let left = pids.filter(isAlive); left.length > 0; left = left.filter(isAlive)) {
    if (performance.now() > deadline)
      throw new SymvirtError("needsOperator", `Processes ${left.join(", ")} of the lab do not end`, {
        hint: "look at them with ps, then run lab down again",
      });
    await delay(20);
  }
}
