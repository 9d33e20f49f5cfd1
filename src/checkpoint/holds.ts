/**
 * Holds: who writes, reads or removes a checkpoint. As with the controller's lock (state/lock.ts) everybody puts a
 * record of its own beside the others' and then looks at them, and of two that exclude each other at least one
 * withdraws; a record of a dead process is nobody's. Unlike it there are shared holds, and the store may be used by
 * several machines: a process of another machine cannot be seen, so its record counts until it is removed.
 */
import { randomBytes } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, rmdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import {
  livesHere,
  machineName,
  ownIdentity,
  processIdentity,
} from "../controller/state/process-identity.js";
import { writeDurably } from "./durable.js";

const recordSchema = processIdentity.extend({
  machine: z.string(),
  /** "checkpoint of vm1, vm2", "verify". */
  what: z.string(),
  /** write and remove are alone, reads go together. base: VMs run on its files, whether this process lives or not. */
  kind: z.enum(["write", "read", "remove", "base"]),
});
type HoldRecord = z.infer<typeof recordSchema>;
export type HoldKind = HoldRecord["kind"];

export interface Holder extends HoldRecord {
  /** The record's file: what an operator removes when a machine has gone for good. */
  file: string;
}

export interface Hold {
  readonly file: string;
  describe(what: string): void;
  /** Idempotent. */
  release(): void;
}

/** Whether a process of this machine wrote it; of others nothing can be known. */
const isOfThisMachine = (record: HoldRecord): boolean =>
  record.bootId === ownIdentity().bootId || record.machine === machineName();

function parseRecord(text: string): HoldRecord | undefined {
  try {
    return recordSchema.parse(JSON.parse(text));
  } catch {
    return undefined;
  }
}

/** Of a newer symvirt, or of a bad disk: it may be that of a base, so it protects the checkpoint as one. */
const unreadable = (file: string): HoldRecord => ({
  ...ownIdentity(),
  machine: "",
  what: `a hold that cannot be read (${file})`,
  kind: "base",
});

const counts = (record: HoldRecord): boolean =>
  record.kind === "base" || livesHere(record) || !isOfThisMachine(record);

const excludes = (a: HoldKind, b: HoldKind): boolean =>
  !["read", "base"].includes(a) || !["read", "base"].includes(b);

/** The holds on one checkpoint of a store. */
export class Holds {
  readonly #store: string;
  readonly #folder: string;

  constructor(store: string, id: string) {
    this.#store = join(store, ".holds");
    this.#folder = join(this.#store, id);
  }

  /** Those that count; the rest are removed. */
  holders(): Holder[] {
    let names: string[];
    try {
      names = readdirSync(this.#folder);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
      throw error;
    }
    const living: Holder[] = [];
    for (const name of names.filter((n) => n.endsWith(".json"))) {
      const file = join(this.#folder, name);
      let text: string;
      try {
        text = readFileSync(file, "utf8");
      } catch (error) {
        // Released between readdir and read.
        if ((error as NodeJS.ErrnoException).code === "ENOENT") continue;
        throw error;
      }
      const record = parseRecord(text) ?? unreadable(file);
      if (counts(record)) living.push({ ...record, file });
      else rmSync(file, { force: true });
    }
    return living;
  }

  /** Takes a hold, or returns who stands against it (whom `but` does not let pass). */
  take(
    kind: Exclude<HoldKind, "base">,
    what: string,
    but: (holder: Holder) => boolean = () => false,
  ): Hold | Holder {
    return this.#put(`${process.pid}-${randomBytes(8).toString("hex")}`, kind, what, but);
  }

  /** A base, which outlives this process. `name` is a file's name. */
  addBase(name: string, what: string): Hold | Holder {
    return this.#put(`base-${name}`, "base", what, () => false);
  }

  removeBase(name: string): void {
    rmSync(join(this.#folder, `base-${name}.json`), { force: true });
    this.#tidy();
  }

  /** Removes every base; only for who removes the checkpoint. */
  removeBases(): void {
    for (const holder of this.holders()) if (holder.kind === "base") rmSync(holder.file, { force: true });
  }

  #put(name: string, kind: HoldKind, what: string, but: (holder: Holder) => boolean): Hold | Holder {
    const file = join(this.#folder, `${name}.json`);
    const write = (words: string) => {
      const record: HoldRecord = { ...ownIdentity(), machine: machineName(), what: words, kind };
      writeDurably(file, `${JSON.stringify(record)}\n`);
    };
    const release = () => {
      rmSync(file, { force: true });
      this.#tidy();
    };
    // The folder may be tidied away by who releases the last hold just now.
    for (let tries = 1; ; tries++) {
      try {
        mkdirSync(this.#folder, { recursive: true, mode: 0o700 });
        write(what);
        break;
      } catch (error) {
        const code = (error as NodeJS.ErrnoException).code ?? "";
        // Removing must be possible on a full disk. Nobody else can begin to use the checkpoint there either.
        if (["ENOSPC", "EDQUOT"].includes(code) && kind === "remove") break;
        if (code !== "ENOENT" || tries === 10) throw error;
      }
    }
    const against = this.holders().find((h) => h.file !== file && excludes(kind, h.kind) && !but(h));
    if (against === undefined) return { file, describe: write, release };
    release();
    return against;
  }

  #tidy(): void {
    for (const folder of [this.#folder, this.#store])
      try {
        rmdirSync(folder);
      } catch {
        // Somebody else has a hold.
      }
  }
}

/** "verify (pid 4711)", "checkpoint of vm1 (pid 12 on h2)", "restart …, whose VMs run on its files". */
export function holderText(holder: Holder): string {
  if (holder.kind === "base") return holder.what;
  const elsewhere = isOfThisMachine(holder) ? "" : ` on ${holder.machine.split(":")[0]}`;
  return `${holder.what} (pid ${holder.pid}${elsewhere})`;
}

/** What to do about a holder. */
export function holderHint(holder: Holder): string {
  if (holder.kind === "base")
    return "end these VMs, or restart them from another checkpoint; `symvirt checkpoints rm --force` if they run no more";
  if (isOfThisMachine(holder)) return "wait until it has ended";
  return `wait until it has ended; if that machine is gone for good, remove ${holder.file}`;
}
