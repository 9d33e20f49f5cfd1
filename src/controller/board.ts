/**
 * The board: an all-gather over the ranks of a job, through the hosts. Each rank posts bytes under a key;
 * when every rank of the job has posted, every part goes to every VM of the job. The host never looks
 * into the bytes. One set decides: with the "quiet" set complete nothing is on the wire any more and the
 * ranks tear down, so from then on the host may not take the park order back. Of a live way back "ready"
 * decides the same way: with it complete the ranks use the card again, and may not take that back.
 */
import type { BoardPart, GuestPost } from "../protocol/messages.js";
import { MAX_CHUNK_BYTES } from "../protocol/messages.js";

export interface BoardJob {
  job: string;
  worldSize: number;
}

export interface BoardOptions {
  cycle: number;
  jobs: readonly BoardJob[];
  /** Whether this VM may post for this rank. */
  mayPost: (vm: string, job: string, rank: number) => boolean;
  /** A job's "quiet" set is complete: called before any part of it is given out. */
  onQuiet: (job: string, step: number) => void;
  /** The same for a job's "ready" set, which ends what "quiet" began. */
  onReady?: (job: string, step: number) => void;
  /** A set is complete: give these parts to every VM of the job. */
  onComplete: (job: string, parts: () => Iterable<Part>) => void;
  /** The job holds more bytes than it may. */
  onOverflow: (job: string, limit: number) => void;
  maxBytesPerJob?: number;
}

export type Part = Omit<BoardPart, "session">;

interface Posted {
  bytes: Buffer;
  /** Which bytes have come: chunks may come again after a reconnect, but never with other bytes. */
  have: Uint8Array;
  missing: number;
}

interface Sets {
  keys: Map<string, Map<number, Posted>>;
  complete: string[];
  held: number;
}

const DEFAULT_MAX = 64 * 1024 * 1024;
/** Keys one job may use in one step; a guest must not grow the table without end. */
const MAX_KEYS = 64;

export class Board {
  readonly #options: BoardOptions;
  readonly #jobs: Map<string, number>;
  readonly #sets = new Map<string, Sets>();
  readonly #quiet = new Set<string>();
  readonly #everQuiet = new Set<string>();
  readonly #conflicts = new Map<string, number>();
  #step = 0;

  constructor(options: BoardOptions) {
    this.#options = options;
    this.#jobs = new Map(options.jobs.map((j) => [j.job, j.worldSize]));
  }

  /** Opens the board of a step; sets of earlier steps are forgotten and never complete any more. */
  open(step: number): void {
    this.#step = step;
    this.#sets.clear();
  }

  /** Whether this job has given the card up: of the two sets that decide, "quiet" was complete last. */
  quietComplete(job: string): boolean {
    return this.#quiet.has(job);
  }

  /** For a controller that takes over: what the journal says was given out. */
  rememberQuiet(job: string): void {
    this.#quiet.add(job);
    this.#everQuiet.add(job);
  }

  /** Whether the job's ranks have torn down in this cycle. */
  wasQuiet(job: string): boolean {
    return this.#everQuiet.has(job);
  }

  /** Whether the last set of the current step is out: the ranks close their old route now, and must not be disturbed. */
  isBetween(job: string): boolean {
    const complete = this.#sets.get(job)?.complete ?? [];
    return complete.some((key) => key.startsWith("quiet") || key === "back.drained");
  }

  /** Posts of a VM that differed from what it had posted before. */
  conflicts(vm: string): number {
    return this.#conflicts.get(vm) ?? 0;
  }

  /** Takes one chunk. Returns why it was not used, undefined when it was. */
  post(vm: string, chunk: GuestPost): string | undefined {
    const { job, rank, key } = chunk;
    const worldSize = this.#jobs.get(job);
    if (worldSize === undefined) return `job ${job} is not part of this cycle`;
    if (chunk.cycle !== this.#options.cycle || chunk.step !== this.#step)
      return `a post for step ${chunk.cycle}/${chunk.step}, not ${this.#options.cycle}/${this.#step}`;
    if (rank >= worldSize || !this.#options.mayPost(vm, job, rank))
      return `${vm} posts for rank ${rank} of ${job}, which is not its own`;
    const sets: Sets = this.#sets.get(job) ?? { keys: new Map(), complete: [], held: 0 };
    this.#sets.set(job, sets);
    const set = sets.keys.get(key) ?? new Map<number, Posted>();
    if (!sets.keys.has(key) && sets.keys.size >= MAX_KEYS) return `more than ${MAX_KEYS} keys in one step`;
    sets.keys.set(key, set);

    const bytes = Buffer.from(chunk.data, "base64");
    if (chunk.offset + bytes.length > chunk.total || (bytes.length === 0 && chunk.total > 0))
      return `a chunk of ${bytes.length} bytes at ${chunk.offset} does not fit a post of ${chunk.total}`;
    let posted = set.get(rank);
    if (posted === undefined) {
      const limit = this.#options.maxBytesPerJob ?? DEFAULT_MAX;
      if (sets.held + chunk.total > limit) {
        this.#options.onOverflow(job, limit);
        return `the board of job ${job} is full (${limit} bytes)`;
      }
      sets.held += chunk.total;
      posted = { bytes: Buffer.alloc(chunk.total), have: new Uint8Array(chunk.total), missing: chunk.total };
      set.set(rank, posted);
    }
    if (posted.bytes.length !== chunk.total || !fill(posted, chunk.offset, bytes)) {
      this.#conflicts.set(vm, this.conflicts(vm) + 1);
      return `${vm} posts other bytes for rank ${rank} under "${key}" than before`;
    }
    if (posted.missing === 0 && !sets.complete.includes(key) && this.#isComplete(set, worldSize)) {
      sets.complete.push(key);
      if (key.startsWith("quiet") && !this.#quiet.has(job)) {
        this.#options.onQuiet(job, this.#step);
        this.rememberQuiet(job);
      }
      if (key === "ready" && this.#quiet.has(job)) {
        this.#options.onReady?.(job, this.#step);
        this.#quiet.delete(job);
      }
      const step = this.#step;
      this.#options.onComplete(job, () => this.#parts(job, step, key, set));
    }
    return undefined;
  }

  /** Every part of every complete set of the current step of these jobs, to be told again after a reconnect. */
  level(jobs: Iterable<string>): Iterable<Part> {
    // Given out as fast as a guest takes it: by then another step may be open.
    const step = this.#step;
    const sets = [...jobs].map((job) => [job, this.#sets.get(job)] as const);
    const parts = this.#parts.bind(this);
    return (function* () {
      for (const [job, found] of sets)
        for (const key of found?.complete ?? [])
          yield* parts(job, step, key, found?.keys.get(key) ?? new Map());
    })();
  }

  /** Ranks that have not posted under any key that begins with `prefix`, for messages. */
  missing(job: string, prefix: string): number[] {
    const posted = new Set<number>();
    for (const [key, set] of this.#sets.get(job)?.keys ?? [])
      if (key.startsWith(prefix)) for (const [rank, p] of set) if (p.missing === 0) posted.add(rank);
    return Array.from({ length: this.#jobs.get(job) ?? 0 }, (_, i) => i).filter((r) => !posted.has(r));
  }

  /** Sets of the current step that some ranks have posted to and others not, for messages. */
  incomplete(job: string): { key: string; missing: number[] }[] {
    const worldSize = this.#jobs.get(job) ?? 0;
    return [...(this.#sets.get(job)?.keys ?? [])].flatMap(([key, set]) => {
      if (this.#isComplete(set, worldSize)) return [];
      const missing = Array.from({ length: worldSize }, (_, i) => i).filter((r) => set.get(r)?.missing !== 0);
      return [{ key, missing }];
    });
  }

  #isComplete(set: Map<number, Posted>, worldSize: number): boolean {
    if (set.size < worldSize) return false;
    for (const posted of set.values()) if (posted.missing > 0) return false;
    return true;
  }

  *#parts(job: string, step: number, key: string, set: Map<number, Posted>): Iterable<Part> {
    const { cycle } = this.#options;
    for (const [rank, { bytes }] of set) {
      for (let offset = 0; offset === 0 || offset < bytes.length; offset += MAX_CHUNK_BYTES) {
        const data = bytes.subarray(offset, offset + MAX_CHUNK_BYTES).toString("base64");
        yield { type: "board", job, cycle, step, key, rank, offset, total: bytes.length, data };
      }
    }
  }
}

/** Puts a chunk in its place; false if it contradicts bytes that have come before. */
function fill(posted: Posted, offset: number, bytes: Buffer): boolean {
  for (let i = 0; i < bytes.length; i++) {
    const at = offset + i;
    if (posted.have[at] === 1 && posted.bytes[at] !== bytes[i]) return false;
  }
  for (let i = 0; i < bytes.length; i++) {
    const at = offset + i;
    if (posted.have[at] === 1) continue;
    posted.have[at] = 1;
    posted.bytes[at] = bytes[i] ?? 0;
    posted.missing--;
  }
  return true;
}
