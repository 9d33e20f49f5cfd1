/**
 * The store: a folder with one folder per checkpoint, on a file system that the controller and all hosts reach at the
 * same path. Other processes (hosts' part writers, other controllers) use it at the same time; whoever reads, writes
 * or removes a checkpoint says so with a hold (holds.ts).
 */
import type { Cluster } from "../controller/cluster-file.js";
import { SymvirtError } from "../errors.js";
import { accessSync, constants, existsSync } from "node:fs";
import { join } from "node:path";
import { type CheckpointEntry, checkpointIds, readEntry, unusable } from "./entry.js";
import { type Hold, type Holder, Holds, holderHint, holderText } from "./holds.js";
import { isCheckpointName, type Manifest } from "./manifest.js";
import { PendingCheckpoint, removeFolder } from "./pending.js";
import { checkRoom, checkStoreFolder, openStoreFolder, type Room, storeFailure } from "./room.js";
import { sweepStore } from "./sweep.js";
import { type VerifyOptions, type VerifyReport, verifyParts } from "./verify.js";

export type { CheckpointEntry, CheckpointState } from "./entry.js";
export { type PartPlace, PendingCheckpoint } from "./pending.js";
export { estimateBytes, type Room } from "./room.js";
export type { PartVerdict, VerifyOptions, VerifyReport } from "./verify.js";

/** A shared hold: as long as it is there nobody removes the checkpoint. */
export interface ReadHold {
  id: string;
  /** Absolute path of the checkpoint's folder. */
  folder: string;
  manifest: Manifest;
  /** Idempotent. */
  release(): void;
}

export interface PruneReport {
  removed: string[];
  kept: string[];
  /** Would have been removed, but are in use. */
  refused: { id: string; why: string }[];
}

export interface BeginOptions {
  /** The operator's name for it, part of the id. */
  name?: string | undefined;
  /** "checkpoint of vm1, vm2": what those read who find it being written. */
  what: string;
  /** What it may take, see `estimateBytes`; begin refuses if that is not free. */
  neededBytes: number;
}

export class CheckpointStore {
  readonly path: string;
  /** Of zstd. */
  readonly level: number;
  /** Complete checkpoints to be kept by a prune after each new one; undefined: all. */
  readonly keep: number | undefined;
  readonly #cluster: string;

  /** Touches nothing. Throws "usage" when the cluster file names no store. */
  constructor(cluster: Pick<Cluster, "name" | "checkpoints">) {
    const { checkpoints } = cluster;
    if (checkpoints === undefined)
      throw new SymvirtError("usage", `cluster "${cluster.name}" has no checkpoint store`, {
        hint: 'add checkpoints: {path: "/a/folder/that/all/hosts/reach"} to the cluster file',
      });
    this.path = checkpoints.path;
    this.level = checkpoints.level;
    this.keep = checkpoints.keep;
    this.#cluster = cluster.name;
  }

  /** Makes the folder if there is none. Throws "usage" or "refused" when this process cannot write in it, or others may. */
  open(): void {
    openStoreFolder(this.path);
    try {
      accessSync(this.path, constants.R_OK | constants.W_OK | constants.X_OK);
    } catch (cause) {
      throw storeFailure(this.path, cause);
    }
  }

  /** Free space of the store. Makes its folder. Throws "refused" with both figures if less than `neededBytes` is free. */
  room(neededBytes: number): Room {
    openStoreFolder(this.path);
    return checkRoom(this.path, neededBytes);
  }

  /** Begins a checkpoint: room, write hold, folder (0700). Throws "usage" or "refused" before anything is touched. */
  begin({ name, what, neededBytes }: BeginOptions): PendingCheckpoint {
    if (name !== undefined && !isCheckpointName(name))
      throw new SymvirtError("usage", `"${name}" cannot be a checkpoint's name`, {
        hint: "letters, digits, . _ -, at most 63, beginning with a letter or digit",
      });
    this.room(neededBytes);
    try {
      return PendingCheckpoint.begin(this.path, this.#cluster, what, name, new Date());
    } catch (error) {
      throw storeFailure(this.path, error);
    }
  }

  /** Everything in the store, oldest first, whatever its state. Throws "usage" when it cannot be read. */
  list(): CheckpointEntry[] {
    return this.#ids().flatMap((id) => {
      try {
        return [this.entry(id)];
      } catch (error) {
        // Removed since the folder was read.
        if (!existsSync(join(this.path, id))) return [];
        throw error;
      }
    });
  }

  /** One of them. Throws "usage" for an unknown id, and for one that this process cannot read. */
  entry(id: string): CheckpointEntry {
    try {
      return readEntry(this.path, this.#cluster, id);
    } catch (error) {
      throw storeFailure(this.path, error);
    }
  }

  #ids(): string[] {
    try {
      return checkpointIds(this.path);
    } catch (error) {
      throw storeFailure(this.path, error);
    }
  }

  /** Of a checkpoint that can be restarted. Throws "usage" (unknown id) or "refused" (foreign, newer, damaged, unfinished). */
  read(id: string): Manifest {
    const entry = this.entry(id);
    if (entry.state !== "complete" || entry.manifest === undefined) throw unusable(entry);
    return entry.manifest;
  }

  /** The newest complete checkpoint of this cluster. */
  last(): Manifest | undefined {
    return this.list().findLast((entry) => entry.state === "complete")?.manifest;
  }

  /** As `read`, and nobody removes it until `release` or until this process has ended. `what`: "restart". */
  hold(id: string, what: string): ReadHold {
    this.#checkFolder();
    const { release } = this.#take(id, "read", what);
    try {
      return { id, folder: join(this.path, id), manifest: this.read(id), release };
    } catch (error) {
      release();
      throw error;
    }
  }

  /**
   * Notes that VMs run on the checkpoint's files (a disk's backing file): it is not removed until `releaseBase`,
   * whether this process lives or not. For who has a read hold. `name` is a file's name, `what` a sentence such as
   * "vm1, vm2 run on its disks since the restart of cycle 12".
   */
  addBase(id: string, base: { name: string; what: string }): void {
    this.read(id);
    if (!isCheckpointName(base.name)) throw new Error(`not a base's name: ${base.name}`);
    const hold = new Holds(this.path, id).addBase(base.name, base.what);
    if ("kind" in hold) throw inUse(id, hold);
  }

  /** Idempotent. */
  releaseBase(id: string, name: string): void {
    new Holds(this.path, id).removeBase(name);
  }

  /**
   * Reads every part and compares its hash, under a read hold. Damage of parts is in the report. Throws "usage"
   * (unknown id) or "refused" (foreign, newer, unfinished, or a manifest that cannot be read).
   */
  async verify(id: string, options: VerifyOptions): Promise<VerifyReport> {
    this.#checkFolder();
    const { release } = this.#take(id, "read", "verify");
    try {
      const entry = this.entry(id);
      const readable = entry.state === "complete" || entry.state === "damaged";
      if (!readable || entry.manifest?.id !== id) throw unusable(entry);
      return await verifyParts(join(this.path, id), entry.manifest, options);
    } finally {
      release();
    }
  }

  /** What is read for a restart was written by us. A folder that is not there is told of as an unknown id. */
  #checkFolder(): void {
    if (existsSync(this.path)) checkStoreFolder(this.path);
  }

  /**
   * Removes one checkpoint, also a damaged or partial one. Throws "usage" (unknown id) or "refused": of another
   * cluster, in use, or the base of running VMs (unless `evenIfBase`). Snapshots inside disk images are the caller's.
   */
  remove(id: string, options: { evenIfBase?: boolean } = {}): void {
    const hold = this.#take(id, "remove", "remove", options.evenIfBase === true);
    try {
      const entry = this.entry(id);
      if (entry.state === "foreign") throw unusable(entry);
      removeFolder(this.path, id);
      new Holds(this.path, id).removeBases();
    } finally {
      hold.release();
    }
  }

  /** Removes the oldest complete checkpoints of this cluster until `keep` (at least 1) are left; those in use stay and are told. */
  prune(keep: number): PruneReport {
    if (!Number.isInteger(keep) || keep < 1) throw new Error(`cannot keep ${keep} checkpoints`);
    const complete = this.list()
      .filter((entry) => entry.state === "complete")
      .map((entry) => entry.id);
    const report: PruneReport = { removed: [], kept: complete.slice(-keep), refused: [] };
    for (const id of complete.slice(0, -keep))
      try {
        this.remove(id);
        report.removed.push(id);
      } catch (error) {
        if (!(error instanceof SymvirtError)) throw error;
        if (error.exit === "refused") report.refused.push({ id, why: error.message });
        // "usage": another process has removed it meanwhile.
      }
    return report;
  }

  /** Removes what dead writers left, never what is still written. Returns the ids. Call it before every checkpoint. */
  sweep(): string[] {
    return sweepStore(this.path, this.#cluster);
  }

  #take(id: string, kind: "read" | "remove", what: string, evenIfBase = false): Hold {
    this.entry(id);
    let hold: Hold | Holder;
    try {
      hold = new Holds(this.path, id).take(kind, what, (h) => evenIfBase && h.kind === "base");
    } catch (error) {
      throw storeFailure(this.path, error);
    }
    if ("kind" in hold) throw inUse(id, hold);
    return hold;
  }
}

function inUse(id: string, holder: Holder): SymvirtError {
  return new SymvirtError("refused", `checkpoint ${id} is in use: ${holderText(holder)}`, {
    hint: holderHint(holder),
  });
}
