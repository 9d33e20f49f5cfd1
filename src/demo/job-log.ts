/**
 * What a self-verifying workload prints (test/workloads/workload.h): progress lines about twice a
 * second, and one line of JSON at the end. The job is a guest's: nothing here trusts a line.
 */
import { z } from "zod";

/** The last line of a workload. `longestGapAt` is in seconds since the job's start. */
export const jobResult = z.object({
  workload: z.string().max(64),
  ok: z.boolean(),
  ranks: z.number().int().min(1),
  iterations: z.number().int().min(0),
  seconds: z.number().min(0),
  meanMs: z.number().min(0),
  longestGapMs: z.number().min(0),
  longestGapAt: z.number().min(0),
  checksum: z.string().regex(/^[0-9a-f]{1,32}$/),
});
export type JobResult = z.infer<typeof jobResult>;

/** One progress line: `iter N t SECONDS gap MS wall EPOCH_SECONDS`. */
export interface Progress {
  iteration: number;
  /** Seconds since the job's start. */
  seconds: number;
  /** Longest pause between two iterations since the line before, in milliseconds. */
  gapMs: number;
  /** Clock of the guest that printed it, milliseconds since 1970. */
  wallMs: number;
}

const progressLine = /^iter (\d{1,15}) t (\d+(?:\.\d+)?) gap (\d+(?:\.\d+)?) wall (\d+(?:\.\d+)?)$/;
const maxLine = 4096;

/** Reads a progress line; null when it is anything else. */
export function parseProgress(line: string): Progress | null {
  const match = line.length <= maxLine ? progressLine.exec(line.trim()) : null;
  if (match === null) return null;
  return {
    iteration: Number(match[1]),
    seconds: Number(match[2]),
    gapMs: Number(match[3]),
    wallMs: Number(match[4]) * 1000,
  };
}

/** Reads the line of JSON at the end; null when it is anything else. */
export function parseResult(line: string): JobResult | null {
  if (line.length > maxLine || !line.startsWith("{")) return null;
  try {
    const parsed = jobResult.safeParse(JSON.parse(line));
    return parsed.success ? parsed.data : null;
  } catch (error) {
    if (error instanceof SyntaxError) return null;
    throw error;
  }
}

/** Reads a whole output. The last valid line of JSON counts. */
export function parseJobLog(text: string): { samples: Progress[]; result: JobResult | null } {
  const samples: Progress[] = [];
  let result: JobResult | null = null;
  for (const line of text.split("\n")) {
    const progress = parseProgress(line);
    if (progress !== null) samples.push(progress);
    result = parseResult(line.trim()) ?? result;
  }
  return { samples, result };
}
