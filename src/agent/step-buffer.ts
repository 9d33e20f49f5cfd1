/**
 * What belongs to the newest (cycle, step) only: a rank's posts, or the host's board parts. Something
 * of a newer pair clears it, something of an older pair is refused. Repeating a part changes nothing.
 */

/** Orders (cycle, step) pairs: negative if a is older. */
export function compareSteps(a: StepPair, b: StepPair): number {
  return a.cycle - b.cycle || a.step - b.step;
}

export interface StepPair {
  cycle: number;
  step: number;
}

export interface Part extends StepPair {
  key: string;
  rank: number;
  offset: number;
  data: Buffer;
}

/** Bytes all buffers of one kind may hold together. */
export interface Budget {
  used: number;
  readonly max: number;
}

/** What one part costs besides its bytes. */
const PART_OVERHEAD = 200;

export class StepBuffer<T extends Part> {
  readonly #budget: Budget;
  #pair: StepPair = { cycle: 0, step: 0 };
  #parts = new Map<string, T>();
  #bytes = 0;

  constructor(budget: Budget) {
    this.#budget = budget;
  }

  get pair(): StepPair {
    return this.#pair;
  }

  /** "repeated": it is here already. "old": of an older pair, ignore it. "full": over the budget, the sender is to blame. */
  put(part: T): "stored" | "repeated" | "old" | "full" {
    const order = compareSteps(part, this.#pair);
    if (order < 0) return "old";
    if (order > 0) this.advance(part);
    const id = `${part.key}/${part.rank}/${part.offset}`;
    const before = this.#parts.get(id);
    if (before?.data.equals(part.data) === true) return "repeated";
    const grows = cost(part) - (before === undefined ? 0 : cost(before));
    if (this.#budget.used + grows > this.#budget.max) return "full";
    this.#parts.set(id, part);
    this.#account(grows);
    return "stored";
  }

  /** Forgets everything older than the pair. */
  advance(pair: StepPair): void {
    if (compareSteps(pair, this.#pair) <= 0) return;
    this.clear();
    this.#pair = { cycle: pair.cycle, step: pair.step };
  }

  clear(): void {
    this.#parts.clear();
    this.#account(-this.#bytes);
  }

  /** The parts in the order they first came. */
  parts(): Iterable<T> {
    return this.#parts.values();
  }

  #account(bytes: number): void {
    this.#bytes += bytes;
    this.#budget.used += bytes;
  }
}

function cost(part: Part): number {
  return part.data.length + PART_OVERHEAD;
}
