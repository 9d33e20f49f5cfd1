/** The demo's result: what `--json` prints, and what timeline.json holds besides. */
import { z } from "zod";
import { cyclePhases } from "../controller/report.js";

const bytes = z.strictObject({ openib: z.number().int().min(0), tcp: z.number().int().min(0) });

/** Times in milliseconds (of phases: since the cycle began), traffic in bytes of payload. */
export const demoReport = z.strictObject({
  schemaVersion: z.literal(1),
  ok: z.boolean(),
  accelerator: z.string(),
  /** All but `ok` are null for a program of the user's. */
  job: z.strictObject({
    ok: z.boolean(),
    iterations: z.number().int().nullable(),
    longestGapMs: z.number().nullable(),
    /** Iterations while no rank could use the card: from the end of "tear-down" to the begin of "re-init". */
    awayIterations: z.number().int().min(0).nullable(),
  }),
  cycle: z.strictObject({
    strategy: z.string(),
    totalMs: z.number(),
    phases: z.array(
      z.strictObject({ vm: z.string(), phase: z.enum(cyclePhases), startMs: z.number(), ms: z.number() }),
    ),
  }),
  routes: z.array(
    z.strictObject({
      rank: z.number().int().min(0),
      vm: z.string(),
      before: bytes,
      during: bytes,
      after: bytes,
    }),
  ),
  /** What was read of each rank's counters: payload bytes since the job's start, `ms` since the cycle began. */
  bands: z.array(
    z.strictObject({
      rank: z.number().int().min(0),
      vm: z.string(),
      samples: z.array(bytes.extend({ ms: z.number().int() })),
    }),
  ),
  /** Progress lines of the job, `ms` since the cycle began; `gapMs` is the longest pause since the line before. */
  iterations: z.array(
    z.strictObject({ ms: z.number().int(), iteration: z.number().int().min(0), gapMs: z.number().min(0) }),
  ),
  /** Path of the HTML page. */
  timeline: z.string(),
});
export type DemoReport = z.infer<typeof demoReport>;

/** What `--json` prints when there was no cycle to report. */
export const demoFailure = z.strictObject({
  schemaVersion: z.literal(1),
  ok: z.literal(false),
  error: z.strictObject({ message: z.string(), hint: z.string().optional() }),
});
export type DemoFailure = z.infer<typeof demoFailure>;
