/**
 * journal.jsonl: what the controller was about to do, written and fsynced before it does it. A controller
 * that takes over reads it to know where to look; it never believes it where the live state can be asked.
 */
import {
  closeSync,
  existsSync,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  linkSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { SymvirtError } from "../../errors.js";
import { strategies } from "../strategy.js";

/** The VMs of a checkpoint or restart, each with the cards it has afterwards. */
const set = z.object({
  /** Id of the checkpoint. */
  checkpoint: z.string(),
  vms: z.array(
    z.object({
      vm: z.string(),
      host: z.string(),
      cards: z.array(z.object({ tag: z.string(), bus: z.string(), card: z.string() })),
      /** Of a restart: images that are replaced. */
      images: z.array(z.string()).default([]),
    }),
  ),
});
export type CycleSet = z.infer<typeof set>;

const target = z.object({
  cycle: z.number().int(),
  vm: z.string(),
  from: z.string(),
  to: z.string(),
  /** A slot with null has no card there: none to detach at the source, none offered by the destination. */
  cards: z.array(
    z.object({
      tag: z.string(),
      bus: z.string(),
      source: z.string().nullable(),
      destination: z.string().nullable(),
    }),
  ),
  strategy: z.enum(strategies).default("park"),
  /** Ranks that change routes run over openib when the cycle begins, so they have to leave the card. */
  leave: z.boolean().default(true),
  /** The ranks that change routes are to run over openib when it ends. */
  comeBack: z.boolean().default(true),
  jobs: z.array(
    z.object({
      job: z.string(),
      worldSize: z.number().int(),
      /** live: the ranks that change the routes to all their peers, in every step of the cycle; absent: all. */
      moving: z.array(z.number().int()).optional(),
      ranks: z.array(
        z.object({
          rank: z.number().int(),
          vm: z.string(),
          epoch: z.number().int(),
          tcpOnly: z.boolean(),
          /** It ran over tcp with everybody when the cycle began, though it could use a card. */
          away: z.boolean().default(false),
        }),
      ),
    }),
  ),
  /** Of a checkpoint or restart, which are of all VMs; `vm`, `from` and `to` then are those of the first. */
  set: set.optional(),
});
export type CycleTarget = z.infer<typeof target>;

const record = z.discriminatedUnion("kind", [
  z.object({ kind: z.literal("begin"), at: z.string(), pid: z.number().int(), verb: z.string(), target }),
  z.object({
    kind: z.literal("phase"),
    at: z.string(),
    cycle: z.number().int(),
    event: z.string(),
    phase: z.string(),
    step: z.number().int(),
    effects: z.array(z.string()),
    cause: z.string().optional(),
    /** The ranks of the moving VM are ordered to stand still. */
    held: z.literal(true).optional(),
  }),
  /** A script moves a VM whose ranks it holds. */
  z.object({
    kind: z.literal("move"),
    at: z.string(),
    cycle: z.number().int(),
    vm: z.string(),
    from: z.string(),
    to: z.string(),
  }),
  /** The board is about to give out this job's "quiet" set: from here on its ranks tear down. */
  z.object({
    kind: z.literal("quiet"),
    at: z.string(),
    cycle: z.number().int(),
    step: z.number().int(),
    job: z.string(),
  }),
  /** The same of its "ready" set: its ranks use the card again. */
  z.object({
    kind: z.literal("ready"),
    at: z.string(),
    cycle: z.number().int(),
    step: z.number().int(),
    job: z.string(),
  }),
  z.object({
    kind: z.literal("end"),
    at: z.string(),
    cycle: z.number().int(),
    outcome: z.enum(["done", "rolled-back", "needs-operator"]),
    message: z.string(),
    /** `symvirt abort` has something left to do. */
    unfinished: z.boolean(),
  }),
]);
export type JournalRecord = z.infer<typeof record>;
export const journalRecord: z.ZodType<JournalRecord> = record;
type WithoutTime<T> = T extends unknown ? Omit<T, "at"> : never;

/** A cycle that has begun and not ended (or ended with work left for `symvirt abort`). */
export interface InterruptedCycle {
  target: CycleTarget;
  verb: string;
  /** Phase of the last record. */
  phase: string;
  step: number;
  /** Phases the cycle has entered, in order. */
  phases: string[];
  /** Jobs whose ranks were told that nothing is on the wire: they tear down whatever comes. */
  quietJobs: string[];
  /** The ranks of the moving VM were ordered to stand still and not yet to go on. */
  held: boolean;
  /** Of a script's hold: the last move it began, and how many phases had been entered by then. */
  move: { vm: string; from: string; to: string; phasesBefore: number } | undefined;
  message: string | undefined;
}

/** Some ten thousand cycles; it is read whole by every command. */
const ROTATE_BYTES = 8 * 2 ** 20;

export class Journal {
  readonly path: string;

  constructor(folder: string) {
    this.path = join(folder, "journal.jsonl");
  }

  /** Appends one record; returns when it is on the disk. */
  append(entry: WithoutTime<JournalRecord>): void {
    const fd = openSync(this.path, "a", 0o600);
    const { size } = fstatSync(fd);
    try {
      const line = Buffer.from(`${JSON.stringify({ ...entry, at: new Date().toISOString() })}\n`);
      // A disk that runs full takes a part of it.
      for (let done = 0; done < line.length;) done += writeSync(fd, line, done);
      fsyncSync(fd);
    } catch (error) {
      // What was not written has no effect; half of it would spoil the record that follows.
      ftruncateSync(fd, size);
      throw error;
    } finally {
      closeSync(fd);
    }
  }

  /**
   * Cuts off a last line that a crash left half-written. Only for the holder of the lock.
   * A record that was not complete on the disk had no effect yet.
   */
  repair(): void {
    if (!existsSync(this.path)) return;
    const bytes = readFileSync(this.path);
    if (bytes.length === 0 || bytes[bytes.length - 1] === 0x0a) return;
    const fd = openSync(this.path, "r+");
    try {
      if (fstatSync(fd).size === bytes.length) ftruncateSync(fd, bytes.lastIndexOf(0x0a) + 1);
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
  }

  /**
   * When it has grown over `limit` bytes and no cycle is open: its last cycle goes on in a new file, all of it is kept
   * as journal.jsonl.1 in place of an older one. Only for the holder of the lock.
   */
  rotate(limit = ROTATE_BYTES): void {
    if (!existsSync(this.path) || statSync(this.path).size < limit || this.interrupted() !== undefined)
      return;
    const lines = readFileSync(this.path, "utf8").split("\n");
    const begin = lines.findLastIndex((line) => line.startsWith('{"kind":"begin"'));
    if (begin <= 0) return;
    const fresh = `${this.path}.new`;
    writeFileSync(fresh, lines.slice(begin).join("\n"), { mode: 0o600, flush: true });
    rmSync(`${this.path}.1`, { force: true });
    linkSync(this.path, `${this.path}.1`);
    // At every moment there is a journal with the last cycle's number.
    renameSync(fresh, this.path);
  }

  /** Every record. A half-written last line is left out; damage elsewhere is an error with its line. */
  read(): JournalRecord[] {
    if (!existsSync(this.path)) return [];
    const lines = readFileSync(this.path, "utf8").split("\n");
    lines.pop();
    return lines.map((line, i) => {
      try {
        return record.parse(JSON.parse(line));
      } catch (cause) {
        throw new SymvirtError("internal", `the journal is damaged at ${this.path}:${i + 1}`, {
          hint: "look at the VMs with `symvirt status`, then move the journal away by hand",
          cause,
        });
      }
    });
  }

  /** Highest cycle number ever used here. */
  lastCycle(): number {
    return this.read().reduce((top, r) => Math.max(top, r.kind === "begin" ? r.target.cycle : 0), 0);
  }

  /** The last cycle, if it has no end or one that left work for `symvirt abort`. */
  interrupted(): InterruptedCycle | undefined {
    let open: InterruptedCycle | undefined;
    for (const r of this.read()) {
      if (r.kind === "begin") {
        open = {
          target: r.target,
          verb: r.verb,
          phase: "begin",
          step: 0,
          phases: [],
          quietJobs: [],
          held: false,
          move: undefined,
          message: undefined,
        };
      } else if (open === undefined || r.cycle !== open.target.cycle) {
      } else if (r.kind === "phase") {
        open.phase = r.phase;
        open.step = Math.max(open.step, r.step);
        open.phases.push(r.phase);
        open.held = r.held === true;
      } else if (r.kind === "move") {
        open.move = { vm: r.vm, from: r.from, to: r.to, phasesBefore: open.phases.length };
      } else if (r.kind === "quiet") {
        open.quietJobs.push(r.job);
      } else if (r.kind === "ready") {
        open.quietJobs = open.quietJobs.filter((job) => job !== r.job);
      } else if (r.unfinished) {
        open.message = r.message;
      } else open = undefined;
    }
    return open;
  }
}
