/** What `--json` prints: one object for each workload and mode. */
import { z } from "zod";
import { SymvirtError } from "../errors.js";
import { machineSchema } from "../bench/results.js";
import { modes, sizes, workloads } from "./plan.js";

export const evalResult = z.strictObject({
  schemaVersion: z.literal(1),
  machine: machineSchema,
  accelerator: z.enum(["kvm", "tcg"]),
  workload: z.enum(workloads),
  mode: z.enum(modes),
  size: z.enum(sizes),
  /**
   * right: the job ended by itself, and everything it checked was right; after the same iterations as the undisturbed job it has
   * the same checksum. wrong: it has not. failed: the operation failed or the job did not come to its end. left-out: not done.
   */
  outcome: z.enum(["right", "wrong", "failed", "left-out"]),
  /** Whether the answer was right; null: it was left out. */
  right: z.boolean().nullable(),
  /** Why it is not right, or was left out. */
  message: z.string(),
  iterations: z.number().int().nullable(),
  checksum: z.string().nullable(),
  /** All times in milliseconds. From the start of the job's clock to its last iteration, by the host's clock. */
  totalMs: z.number().nullable(),
  /** `totalMs` less that of the undisturbed run, and in per cent of it; null for the undisturbed run itself. */
  overheadMs: z.number().nullable(),
  overheadPercent: z.number().nullable(),
  /** They follow one another; in live the job runs on in them. What is left of `totalMs` the job was alone. */
  phases: z.array(z.strictObject({ phase: z.string(), ms: z.number().min(0) })),
  /** live: the ranks of the moving VM stood still that long, beside the phases, so that pre-copy could end. */
  heldMs: z.number().min(0),
  /** Longest pause between two iterations by rank 0's clock; null where that clock was set back (checkpoint). */
  longestGapMs: z.number().nullable(),
});
export type EvalResult = z.infer<typeof evalResult>;

/** Reads what `--json` has printed. Throws where a line is not of that kind. */
export function parseResults(text: string, file: string): EvalResult[] {
  return text.split("\n").flatMap((line, i) => {
    if (line.trim() === "") return [];
    let parsed: unknown;
    try {
      parsed = JSON.parse(line);
    } catch (cause) {
      throw new SymvirtError("usage", `${file}:${i + 1} is not JSON`, { cause });
    }
    const found = evalResult.safeParse(parsed);
    if (found.success) return [found.data];
    throw new SymvirtError("usage", `${file}:${i + 1} is no result of an evaluation`, {
      hint: z.prettifyError(found.error),
    });
  });
}

/** No answer was wrong or missing. */
export function allRight(results: readonly EvalResult[]): boolean {
  return results.length > 0 && results.every(({ right }) => right !== false);
}

/** How long the job was alone. */
export function aloneMs({ totalMs, phases }: EvalResult): number {
  return Math.max(0, (totalMs ?? 0) - phases.reduce((sum, { ms }) => sum + ms, 0));
}
