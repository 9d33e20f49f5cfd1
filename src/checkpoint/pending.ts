/** A checkpoint that is being written. Its parts lie in their final place from the start; commit makes it exist. */
import { chmodSync, existsSync, lstatSync, mkdirSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { SymvirtError } from "../errors.js";
import { symvirtVersion } from "../version.js";
import { sync, writeDurably } from "./durable.js";
import { manifestOf, sizeTrouble } from "./entry.js";
import { hashFile } from "./hash-file.js";
import { type Hold, Holds } from "./holds.js";
import {
  type Captured,
  isPartFile,
  type Manifest,
  MANIFEST_VERSION,
  manifest,
  type Part,
  partsOf,
} from "./manifest.js";

/** Where a host's command writes a part. */
export interface PartPlace {
  /** Name for the manifest. */
  file: string;
  /** Absolute, the same on every host. */
  path: string;
}

export class PendingCheckpoint {
  readonly id: string;
  /** Absolute path of the checkpoint's folder. */
  readonly folder: string;
  readonly #store: string;
  readonly #cluster: string;
  readonly #createdAt: Date;
  readonly #hold: Hold;
  readonly #places = new Set<string>();
  #open = true;

  private constructor(store: string, cluster: string, id: string, createdAt: Date, hold: Hold) {
    this.#store = store;
    this.#cluster = cluster;
    this.id = id;
    this.folder = join(store, id);
    this.#createdAt = createdAt;
    this.#hold = hold;
  }

  /** Makes the folder, under a write hold that is there before it. Two of one name in the same second get two ids. */
  static begin(
    store: string,
    cluster: string,
    what: string,
    name: string | undefined,
    now: Date,
  ): PendingCheckpoint {
    for (let second = 0; ; second++) {
      const id = idOf(new Date(now.getTime() + 1000 * second), name);
      const hold = new Holds(store, id).take("write", what);
      if ("kind" in hold) continue;
      try {
        mkdirSync(join(store, id), { mode: 0o700 });
        sync(store);
        return new PendingCheckpoint(store, cluster, id, now, hold);
      } catch (error) {
        hold.release();
        if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
      }
    }
  }

  /** Place of a part, e.g. "vm1.ram.zst"; the name must be new in this checkpoint. */
  place(file: string): PartPlace {
    if (!this.#open) throw new Error(`checkpoint ${this.id} is no longer being written`);
    if (!isPartFile(file) || this.#places.has(file)) throw new Error(`not a new part's name: ${file}`);
    this.#places.add(file);
    return { file, path: join(this.folder, file) };
  }

  /** Says what the writer does now, for those who find it writing. */
  describe(what: string): void {
    this.#hold.describe(what);
  }

  /** Of a file that a VMM wrote into the folder by itself (a qcow2 copy): hash and size; fsyncs it, sets its mode. */
  async seal(file: string, signal: AbortSignal): Promise<Part> {
    const path = join(this.folder, file);
    chmodSync(path, 0o600);
    sync(path);
    const { size } = lstatSync(path);
    const sha256 = await hashFile(path, signal);
    return { file, encoding: "none", rawBytes: size, storedBytes: size, sha256 };
  }

  /**
   * Checks that the parts are there, removes whatever is no part, writes the manifest durably and ends the hold.
   * After it the checkpoint exists. Throws "rolledBack" when a part is missing or the disk is full: then `abandon`.
   */
  commit(captured: Captured): Manifest {
    if (!this.#open) throw new Error(`checkpoint ${this.id} is no longer being written`);
    const whole = manifest.parse({
      kind: "symvirt-checkpoint",
      version: MANIFEST_VERSION,
      symvirt: symvirtVersion(),
      cluster: this.#cluster,
      id: this.id,
      createdAt: this.#createdAt.toISOString(),
      ...captured,
    } satisfies Manifest);
    const parts = partsOf(whole);
    const names = new Set(parts.map((part) => part.file));
    if (names.size !== parts.length) throw new Error(`a part of ${this.id} is named twice`);
    const wrong = parts.map((part) => sizeTrouble(this.folder, part)).find((trouble) => trouble !== "");
    if (wrong !== undefined) throw this.#failure(wrong);
    try {
      for (const name of readdirSync(this.folder))
        if (!names.has(name)) rmSync(join(this.folder, name), { recursive: true, force: true });
      for (const name of names) chmodSync(join(this.folder, name), 0o600);
      sync(this.folder);
      writeDurably(manifestOf(this.#store, this.id), `${JSON.stringify(whole, null, 2)}\n`);
    } catch (cause) {
      // The name may be there with its fsync failed; it must not exist for anybody.
      rmSync(manifestOf(this.#store, this.id), { force: true });
      throw this.#failure(
        `its manifest cannot be written (${(cause as NodeJS.ErrnoException).code ?? cause})`,
        cause,
      );
    }
    this.#open = false;
    this.#hold.release();
    return whole;
  }

  /** Removes all of it and ends the hold. Idempotent; does nothing after commit. */
  abandon(): void {
    if (!this.#open) return;
    this.#open = false;
    try {
      if (existsSync(this.folder)) removeFolder(this.#store, this.id);
    } finally {
      this.#hold.release();
    }
  }

  #failure(trouble: string, cause?: unknown): SymvirtError {
    const full = ["ENOSPC", "EDQUOT"].includes((cause as NodeJS.ErrnoException | undefined)?.code ?? "");
    return new SymvirtError("rolledBack", `checkpoint ${this.id} is not complete: ${trouble}`, {
      hint: full
        ? "the store is full; earlier checkpoints are intact; make room with `symvirt checkpoints prune --keep N`"
        : "earlier checkpoints are intact; make the checkpoint again",
      cause,
    });
  }
}

/** Removes a checkpoint's folder, the manifest first: whatever is left after a crash is a partial one. */
export function removeFolder(store: string, id: string): void {
  rmSync(manifestOf(store, id), { force: true });
  sync(join(store, id));
  rmSync(join(store, id), { recursive: true, force: true });
  sync(store);
}

/** "20261125T013000Z-nightly". */
function idOf(at: Date, name: string | undefined): string {
  const second = `${at.toISOString().slice(0, 19).replaceAll(/[-:]/g, "")}Z`;
  return name === undefined ? second : `${second}-${name}`;
}
