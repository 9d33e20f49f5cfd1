/** Pseudo-random numbers of a seed: the same seed gives the same numbers on every machine. */

/** Whole numbers of a sequence that its seed decides. */
export interface Random {
  /** From 0 to below `limit`. */
  below(limit: number): number;
  /** One of a list that is not empty. */
  of<T>(list: readonly T[]): T;
}

/** mulberry32 by Tommy Ettinger (public domain): 32 bits of state, good enough to choose what to try. */
export function random(seed: number): Random {
  let state = seed >>> 0;
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  const below = (limit: number): number => Math.floor(next() * limit);
  return {
    below,
    of: (list) => {
      const found = list[below(list.length)];
      if (found === undefined) throw new RangeError("nothing to choose from");
      return found;
    },
  };
}

/** A seed for a run that was given none. */
export function freshSeed(): number {
  return Math.floor(Math.random() * 2 ** 32);
}
