/** Whether a checkpoint will fit: asked before anything is touched. */
import { chmodSync, mkdirSync, statfsSync, statSync } from "node:fs";
import { SymvirtError } from "../errors.js";
import { bytesOf, type Manifest } from "./manifest.js";

export interface Room {
  freeBytes: number;
  neededBytes: number;
}

/**
 * Estimate of what a checkpoint of VMs with so much memory (and disks that are copied, in bytes now used) will take:
 * as much as the memory, or, by the last one of VMs of the same memory, half as much again as that took of it.
 */
export function estimateBytes(
  { memoryBytes, diskBytes = 0 }: { memoryBytes: number; diskBytes?: number },
  last: Manifest | undefined,
): number {
  const before = last?.vms.reduce((sum, vm) => sum + vm.memoryBytes, 0) ?? 0;
  const ratio =
    last === undefined || before === 0 || before !== memoryBytes
      ? 1
      : Math.min(
          1,
          (1.5 * bytesOf({ ...last, vms: last.vms.map((vm) => ({ ...vm, disks: [] })) }).stored) / before,
        );
  return Math.ceil(memoryBytes * ratio) + diskBytes;
}

/** Makes the store's folder (0700) if there is none. Throws "usage" when it cannot be used or others may write in it. */
export function openStoreFolder(path: string): void {
  try {
    if (mkdirSync(path, { recursive: true, mode: 0o700 }) !== undefined) chmodSync(path, 0o700);
    checkStoreFolder(path);
  } catch (cause) {
    if (cause instanceof SymvirtError) throw cause;
    throw storeFailure(path, cause);
  }
}

/**
 * Throws "usage" if others may write in the store, or own it: what a restart loads into QEMU and puts in the place of
 * disks comes from there, and its hashes as well.
 */
export function checkStoreFolder(path: string): void {
  const { mode, uid } = storeStat(path);
  if ((mode & 0o022) !== 0)
    throw new SymvirtError("usage", `others may write in the checkpoint store ${path}`, {
      hint: `checkpoints hold the memory of your VMs: chmod 700 ${path}, or give a folder of its own under checkpoints.path`,
    });
  const own = process.geteuid?.() ?? 0;
  if (uid !== 0 && uid !== own)
    throw new SymvirtError("usage", `the checkpoint store ${path} belongs to uid ${uid}`, {
      hint: `it must be root's or that of uid ${own}, who runs symvirt`,
    });
}

function storeStat(path: string): { mode: number; uid: number } {
  try {
    return statSync(path);
  } catch (cause) {
    throw storeFailure(path, cause);
  }
}

/** An error of the file system as one that says what to do; whatever else it is stays what it is. */
export function storeFailure(path: string, cause: unknown): unknown {
  const code = cause instanceof SymvirtError ? undefined : (cause as NodeJS.ErrnoException).code;
  if (code === undefined) return cause;
  if (code === "ENOSPC" || code === "EDQUOT")
    return new SymvirtError("refused", `the checkpoint store ${path} is full (${code})`, {
      hint: "make room with `symvirt checkpoints prune --keep N`, or enlarge the store",
      cause,
    });
  return new SymvirtError("usage", `cannot use the checkpoint store ${path} (${code})`, {
    hint: "check checkpoints.path in the cluster file, and that you may read and write there",
    cause,
  });
}

/** Free space for this user, by statfs; a quota is not seen. Throws "refused" with both figures when it is too little. */
export function checkRoom(path: string, neededBytes: number): Room {
  const { bavail, bsize } = statfsSync(path);
  const freeBytes = bavail * bsize;
  if (freeBytes < neededBytes)
    throw new SymvirtError(
      "refused",
      `the checkpoint store ${path} has ${mebibytes(freeBytes)} free, and the checkpoint may take ${mebibytes(neededBytes)}`,
      { hint: "make room with `symvirt checkpoints prune --keep N`, or enlarge the store" },
    );
  return { freeBytes, neededBytes };
}

const mebibytes = (bytes: number): string => `${Math.ceil(bytes / 2 ** 20)} MiB`;
