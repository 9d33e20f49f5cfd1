/** What repeated measurements of one thing come to. */
import { SymvirtError } from "../errors.js";

export interface Figure {
  runs: number;
  median: number;
  min: number;
  max: number;
}

const round = (value: number, digits: number): number => Number(value.toFixed(digits));

/** Median, smallest and largest of the samples, rounded; there must be one at least. */
export function figure(samples: readonly number[], digits = 3): Figure {
  const sorted = [...samples].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const upper = sorted[middle];
  const lower = sorted.length % 2 === 1 ? upper : sorted[middle - 1];
  const [min] = sorted;
  const max = sorted.at(-1);
  if (upper === undefined || lower === undefined || min === undefined || max === undefined)
    throw new SymvirtError("internal", "A figure needs one measurement at least");
  return {
    runs: sorted.length,
    median: round((lower + upper) / 2, digits),
    min: round(min, digits),
    max: round(max, digits),
  };
}

/**
 * Ratios of what was measured in pairs, one after the other, so that what disturbs the machine for longer
 * than a pair takes disturbs both sides of a ratio.
 */
export function pairedRatios(over: readonly number[], under: readonly number[]): number[] {
  if (over.length !== under.length)
    throw new SymvirtError("internal", `${over.length} measurements cannot be paired with ${under.length}`);
  return over.map((value, i) => value / (under[i] ?? Number.NaN));
}

/**
 * Cost of one message, free of all that does not depend on the number of messages: the difference of
 * two runs of `rounds` bursts with different numbers of messages in a burst.
 */
export function costPerMessage(
  many: { cost: number; messages: number },
  few: { cost: number; messages: number },
  rounds: number,
): number {
  if (many.messages <= few.messages || rounds <= 0)
    throw new SymvirtError("internal", "The longer bursts must have more messages than the shorter");
  return (many.cost - few.cost) / ((many.messages - few.messages) * rounds);
}
