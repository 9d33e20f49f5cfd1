/** Reads every part of a checkpoint and compares its hash with the manifest's. */
import { join } from "node:path";
import { sizeTrouble } from "./entry.js";
import { hashFile } from "./hash-file.js";
import { bytesOf, type Manifest, partsOf } from "./manifest.js";

export interface PartVerdict {
  file: string;
  ok: boolean;
  /** One sentence, empty when it is well. */
  trouble: string;
}
export interface VerifyReport {
  id: string;
  ok: boolean;
  parts: PartVerdict[];
}
export interface VerifyOptions {
  signal: AbortSignal;
  onProgress?: (doneBytes: number, totalBytes: number) => void;
}

/** Damage is in the report, not thrown; rejects only on abort. */
export async function verifyParts(
  folder: string,
  whole: Manifest,
  options: VerifyOptions,
): Promise<VerifyReport> {
  const total = bytesOf(whole).stored;
  let done = 0;
  const parts: PartVerdict[] = [];
  for (const part of partsOf(whole)) {
    const trouble =
      sizeTrouble(folder, part) ||
      (await hashTrouble(join(folder, part.file), part, options.signal, (count) => {
        done += count;
        options.onProgress?.(done, total);
      }));
    parts.push({ file: part.file, ok: trouble === "", trouble });
  }
  return { id: whole.id, ok: parts.every((part) => part.ok), parts };
}

async function hashTrouble(
  path: string,
  { file, sha256 }: { file: string; sha256: string },
  signal: AbortSignal,
  onBytes: (count: number) => void,
): Promise<string> {
  try {
    const found = await hashFile(path, signal, onBytes);
    return found === sha256 ? "" : `${file} has another SHA-256 than the manifest says`;
  } catch (error) {
    signal.throwIfAborted();
    return `${file} cannot be read (${(error as NodeJS.ErrnoException).code ?? String(error)})`;
  }
}
