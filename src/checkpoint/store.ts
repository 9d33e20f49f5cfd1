/**
 * The store: a folder with one folder per checkpoint, on a file system that the controller and all hosts reach at the
 * same path. Other processes (hosts' part writers, other controllers) use it at the same time; whoever reads, writes
 * or removes a checkpoint says so with a hold (holds.ts).
 */
import type { Cluster } from "../controller/cluster-file.js";
import { SymvirtError } from "../errors.js";
import type { Captured, Manifest, Part } from "./manifest.js";

export type CheckpointState =
  /** Manifest and all parts are there, with their sizes (their hashes: `verify`). */
  | "complete"
  /** It has a manifest, but that or a part is not as it was written. */
  | "damaged"
  /** Of another cluster. */
  | "foreign"
  /** Written by a newer symvirt, with a schema this one does not know. */
  | "newer"
  /** No manifest yet; its writer lives. */
  | "writing"
  /** No manifest, and never will have: its writer is dead. The next `sweep` removes it. */
  | "partial";

export interface CheckpointEntry {
  id: string;
  state: CheckpointState;
  /** One sentence without a period: what is wrong, or who writes it; empty when complete. */
  trouble: string;
  /** Of a complete or foreign checkpoint. */
  manifest: Manifest | undefined;
  /** What the folder's files take. */
  storedBytes: number;
  /** Who uses it now: "verify (pid 12)", "restart … runs from it". */
  users: string[];
}

export interface Room {
  freeBytes: number;
  neededBytes: number;
}

/** A shared hold: as long as it is there nobody removes the checkpoint. */
export interface ReadHold {
  id: string;
  /** Absolute path of the checkpoint's folder. */
  folder: string;
  manifest: Manifest;
  release(): void;
}

/** Where a host's command writes a part. */
export interface PartPlace {
  /** Name for the manifest. */
  file: string;
  /** Absolute, the same on every host. */
  path: string;
}

/** A checkpoint that is being written. Its parts lie in their final place from the start; commit makes it exist. */
export interface PendingCheckpoint {
  readonly id: string;
  readonly folder: string;
  /** Place of a part, e.g. "vm1.ram.zst"; the name must be new. */
  place(file: string): PartPlace;
  /** Says what the writer does now, for those who find it writing. */
  describe(what: string): void;
  /** Hash and sizes of a file that a VMM wrote into the folder by itself (a qcow2 copy); fsyncs it, sets its mode. */
  seal(file: string, signal: AbortSignal): Promise<Part>;
  /** Checks the parts, writes the manifest durably, and ends the hold. After it the checkpoint exists. */
  commit(captured: Captured): Manifest;
  /** Removes all of it; idempotent, and does nothing after commit. */
  abandon(): void;
}

export interface PartVerdict {
  file: string;
  ok: boolean;
  /** One sentence, empty when it is well. */
  trouble: string;
}
export interface VerifyReport {
  id: string;
  ok: boolean;
  parts: PartVerdict[];
}

export interface PruneReport {
  removed: string[];
  kept: string[];
  /** Would have been removed, but are in use. */
  refused: { id: string; why: string }[];
}

export interface BeginOptions {
  /** The operator's name for it, part of the id. */
  name?: string;
  /** "checkpoint of vm1, vm2": what those read who find it being written. */
  what: string;
  /** Estimate of what it will take, see `estimateBytes`; begin refuses if that is not free. */
  neededBytes: number;
}

export class CheckpointStore {
  readonly path: string;
  readonly level: number;
  /** Complete checkpoints to be kept by the prune after each new one; undefined: all. */
  readonly keep: number | undefined;

  /** Throws "usage" when the cluster file names no store. */
  constructor(cluster: Cluster) {
    const { checkpoints } = cluster;
    if (checkpoints === undefined)
      throw new SymvirtError("usage", `cluster "${cluster.name}" has no checkpoint store`, {
        hint: 'add checkpoints: {path: "/folder/all/hosts/reach"} to the cluster file',
      });
    this.path = checkpoints.path;
    this.level = checkpoints.level;
    this.keep = checkpoints.keep;
  }

  /** Free space of the store, and "refused" with both figures if less than `neededBytes` is free. Makes the folder. */
  room(_neededBytes: number): Room {
    throw new Error("follows");
  }

  /** Begins a checkpoint: room, folder (0700), write hold. Throws "refused" before anything is touched. */
  begin(_options: BeginOptions): PendingCheckpoint {
    throw new Error("follows");
  }

  /** Everything in the store, oldest first, whatever its state. */
  list(): CheckpointEntry[] {
    throw new Error("follows");
  }

  /** A checkpoint of this cluster that can be restarted. Throws "usage" (unknown id) or "refused" (foreign, newer, damaged, unfinished). */
  read(_id: string): Manifest {
    throw new Error("follows");
  }

  /** The same, and nobody removes it until `release`. `what`: "restart of 2026…". */
  hold(_id: string, _what: string): ReadHold {
    throw new Error("follows");
  }

  /** Notes that VMs run on the checkpoint's files: it is not removed until `releaseBase`, also when this process has ended. */
  addBase(_id: string, _base: { name: string; what: string }): void {
    throw new Error("follows");
  }

  /** Idempotent. */
  releaseBase(_id: string, _name: string): void {
    throw new Error("follows");
  }

  /** Reads every part and compares its hash. Throws as `read` does; damage of a part is in the report. */
  verify(
    _id: string,
    _options: { signal: AbortSignal; onProgress?: (doneBytes: number, totalBytes: number) => void },
  ): Promise<VerifyReport> {
    throw new Error("follows");
  }

  /** Removes one checkpoint, also a damaged or partial one. Throws "refused" for a foreign one and for one in use. */
  remove(_id: string, _options: { evenIfBase?: boolean } = {}): void {
    throw new Error("follows");
  }

  /** Removes the oldest complete checkpoints of this cluster until `keep` are left; those in use stay. */
  prune(_keep: number): PruneReport {
    throw new Error("follows");
  }

  /** Removes what dead writers left. Returns the ids. Call it at the beginning of every checkpoint. */
  sweep(): string[] {
    throw new Error("follows");
  }
}
