/** What a part's writer (part-write.ts) left beside the part. A host wrote it: it is small, or it is not believed. */
import { readFileSync, statSync } from "node:fs";
import { basename } from "node:path";
import { z } from "zod";
import { plainText } from "../controller/plain-text.js";
import {
  livesHere,
  machineName,
  ownIdentity,
  processIdentity,
} from "../controller/state/process-identity.js";
import { SymvirtError } from "../errors.js";
import type { Part } from "./manifest.js";
import { resultOf, writerOf } from "./part-write.js";

const LARGEST_RESULT = 4096;
const count = z.number().int().min(0);

const result = z.discriminatedUnion("ok", [
  z.strictObject({
    version: z.literal(1),
    ok: z.literal(true),
    rawBytes: count,
    storedBytes: count,
    sha256: z.string().regex(/^[0-9a-f]{64}$/),
  }),
  z.strictObject({
    version: z.literal(1),
    ok: z.literal(false),
    stage: z.string(),
    status: z.number().int(),
    words: z.string(),
  }),
]);

const writer = processIdentity.extend({ machine: z.string() });

/** unknown: it runs on another machine, or has not begun. */
export type WriterLife = "lives" | "dead" | "unknown";

/**
 * The part once its writer has ended; undefined while it has not.
 * Throws "rolledBack" with the stage and its words when it failed, or when it was killed.
 */
export function partResult(path: string, encoding: Part["encoding"]): Part | undefined {
  // First the life, then the result: a writer that ends in between has left its result by then.
  const life = writerLife(path);
  const text = smallFile(resultOf(path));
  const file = basename(path);
  if (text === undefined) {
    if (life !== "dead") return undefined;
    throw new SymvirtError("rolledBack", `the writer of ${file} was killed`, {
      hint: "look at the host's log (out of memory?), then make the checkpoint again",
    });
  }
  const parsed = result.safeParse(parseJson(text));
  if (!parsed.success)
    throw new SymvirtError("rolledBack", `the result of writing ${file} cannot be read`, {
      hint: `see ${resultOf(path)}`,
      cause: parsed.error,
    });
  const { data } = parsed;
  if (!data.ok) throw writeFailure(file, data);
  const { rawBytes, storedBytes, sha256 } = data;
  const there = statSync(path, { throwIfNoEntry: false })?.size;
  if (there !== storedBytes)
    throw new SymvirtError(
      "rolledBack",
      `${file} has ${there ?? "no"} bytes here and ${storedBytes} on the host that wrote it`,
      { hint: "checkpoints.path must be the same folder on this machine and on every host" },
    );
  return { file, encoding, rawBytes, storedBytes, sha256 };
}

function writeFailure(file: string, failure: { stage: string; status: number; words: string }): SymvirtError {
  const stage = plainText(failure.stage, 20);
  const words = plainText(failure.words, 300).replace(/\s+/g, " ").trim();
  const full = /No space left|quota exceeded/i.test(words);
  return new SymvirtError(
    "rolledBack",
    full
      ? `the checkpoint store is full: writing ${file} failed: ${words}`
      : `writing ${file} failed in the stage ${stage}: ${words || `status ${failure.status}`}`,
    {
      hint: full
        ? "earlier checkpoints are intact; make room with `symvirt checkpoints prune --keep N`, or enlarge the store"
        : stage === "compress" && failure.status === 127
          ? "install zstd on that host"
          : "earlier checkpoints are intact; look at that host, then make the checkpoint again",
    },
  );
}

/** Whether the process that writes the part is alive. */
export function writerLife(path: string): WriterLife {
  const text = smallFile(writerOf(path));
  if (text === undefined) return "unknown";
  const parsed = writer.safeParse(parseJson(text));
  if (!parsed.success) return "unknown";
  if (livesHere(parsed.data)) return "lives";
  const here = parsed.data.bootId === ownIdentity().bootId || parsed.data.machine === machineName();
  return here ? "dead" : "unknown";
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** A file of at most 4 KiB (of a larger one nothing that could be parsed), undefined when it is not there. */
function smallFile(path: string): string | undefined {
  const size = statSync(path, { throwIfNoEntry: false })?.size;
  if (size === undefined) return undefined;
  if (size > LARGEST_RESULT) return "";
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
}
