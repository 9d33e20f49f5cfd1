/**
 * Who uses a verbs device of this guest: the proof behind the SymVirt wait. What a rank says about
 * itself is not enough; here every process is looked at, and the kernel's own list. Hot-unplug under a
 * user does not fail, it kills the job later, so when in doubt the answer is "held".
 */
import { execFile } from "node:child_process";
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import type { HolderReport } from "../protocol/messages.js";
import { errorCode } from "./addon.js";
import { printable } from "./rank-wire.js";

const DEVICE_FOLDER = "/dev/infiniband/";
const MAX_HOLDERS = 16;
const MAX_DESCRIPTORS = 200_000;
const RDMA_TIMEOUT_MS = 5000;

/** All holders, at most 16; an empty list is the proof that the card is released. */
export async function findHolders(places: {
  proc: string;
  sysfs: string;
  rdma: string;
}): Promise<HolderReport[]> {
  const { holders, unreadable } = scanProcesses(places.proc);
  // Without any verbs device there is nothing a process we may not look into could hold.
  if (hasVerbsDevice(places.sysfs)) {
    holders.push(...unreadable);
    if (holders.length === 0) holders.push(...(await kernelHolders(places.rdma)));
  }
  return holders.slice(0, MAX_HOLDERS);
}

function hasVerbsDevice(sysfs: string): boolean {
  try {
    return readdirSync(join(sysfs, "class/infiniband")).length > 0;
  } catch (error) {
    if (errorCode(error) === "ENOENT") return false;
    throw error;
  }
}

export interface ProcessScan {
  holders: HolderReport[];
  /** Processes the agent was not allowed to look into. */
  unreadable: HolderReport[];
}

/** Processes with a descriptor or mapping of a /dev/infiniband device; one entry a process. */
export function scanProcesses(proc: string): ProcessScan {
  const scan: ProcessScan = { holders: [], unreadable: [] };
  let descriptors = 0;
  for (const name of readdirSync(proc)) {
    if (!/^\d+$/.test(name)) continue;
    const folder = join(proc, name);
    try {
      const links = readdirSync(join(folder, "fd"));
      descriptors += links.length;
      if (descriptors > MAX_DESCRIPTORS) {
        const what = `more than ${MAX_DESCRIPTORS} descriptors: not all were looked at`;
        scan.holders.push({ pid: 0, command: "", what });
        return scan;
      }
      const what = openDevice(folder, links) ?? mappedDevice(folder);
      if (what !== undefined) scan.holders.push({ pid: Number(name), command: commandOf(folder), what });
    } catch (error) {
      const code = errorCode(error);
      if (code === "ENOENT" || code === "ESRCH") continue;
      if (code !== "EACCES" && code !== "EPERM") throw error;
      const what = "not readable: the agent must run as root";
      scan.unreadable.push({ pid: Number(name), command: commandOf(folder), what });
    }
    if (scan.holders.length >= MAX_HOLDERS) return scan;
  }
  return scan;
}

function openDevice(folder: string, links: string[]): string | undefined {
  for (const fd of links) {
    let target: string;
    try {
      target = readlinkSync(join(folder, "fd", fd));
    } catch (error) {
      if (errorCode(error) === "ENOENT") continue;
      throw error;
    }
    if (target.startsWith(DEVICE_FOLDER)) return `open ${target}`.slice(0, 96);
  }
  return undefined;
}

function mappedDevice(folder: string): string | undefined {
  const maps = readFileSync(join(folder, "maps"), "latin1");
  // The path is the last of a line's columns; one that only contains the folder is somebody's own file.
  const at = maps.indexOf(` ${DEVICE_FOLDER}`) + 1;
  if (at === 0) return undefined;
  const end = maps.indexOf("\n", at);
  return `mapped ${maps.slice(at, end === -1 ? undefined : end)}`.slice(0, 96);
}

function commandOf(folder: string): string {
  try {
    return printable(readFileSync(join(folder, "comm"), "utf8").trim()).slice(0, 64);
  } catch (error) {
    const code = errorCode(error);
    if (code === "ENOENT" || code === "ESRCH") return "";
    throw error;
  }
}

/** User contexts and memory regions the kernel still counts. Without the rdma tool there is nothing to ask. */
async function kernelHolders(rdma: string): Promise<HolderReport[]> {
  const summary = await rdmaRows(rdma, ["-j", "resource", "show"]);
  if (typeof summary === "string") return [{ pid: 0, command: "rdma", what: summary }];
  const holders: HolderReport[] = [];
  for (const device of summary) {
    const [ctx, mr] = [countOf(device.ctx), countOf(device.mr)];
    // One pd, cq and qp stay with the kernel's own ib_core; contexts and regions are only ever a user's.
    if (ctx === 0 && mr === 0) continue;
    const name = textOf(device.ifname);
    const what = `kernel counts ${ctx} contexts, ${mr} memory regions on ${name}`.slice(0, 96);
    const rows = await rdmaRows(rdma, ["-j", "resource", "show", ctx > 0 ? "ctx" : "mr"]);
    const users = typeof rows === "string" ? [] : rows.filter((row) => row.ifname === device.ifname);
    if (users.length === 0) holders.push({ pid: 0, command: "", what });
    for (const user of users)
      holders.push({
        pid: countOf(user.pid),
        command: printable(textOf(user.comm)).slice(0, 64),
        what,
      });
  }
  return holders;
}

/** Rows of a JSON listing; none without the tool; a text says why it failed. */
function rdmaRows(rdma: string, args: string[]): Promise<Record<string, unknown>[] | string> {
  return new Promise((resolve) => {
    execFile(rdma, args, { timeout: RDMA_TIMEOUT_MS, maxBuffer: 1 << 20 }, (error, stdout, stderr) => {
      if (error !== null) {
        if (errorCode(error) === "ENOENT") resolve([]);
        else resolve(printable(`rdma resource failed: ${stderr.trim() || error.message}`).slice(0, 96));
        return;
      }
      try {
        resolve(asRows(stdout.trim() === "" ? [] : JSON.parse(stdout)));
      } catch {
        resolve("rdma resource gave no JSON");
      }
    });
  });
}

function asRows(value: unknown): Record<string, unknown>[] {
  return Array.isArray(value)
    ? value.filter((row): row is Record<string, unknown> => typeof row === "object" && row !== null)
    : [];
}

function countOf(value: unknown): number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0 ? value : 0;
}

function textOf(value: unknown): string {
  return typeof value === "string" ? value : "";
}
