/** SHA-256 of a file, read as a stream. */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";

/** Hexadecimal. Rejects with the signal's reason on abort, or with the read error (an EIO of a bad disk). */
export async function hashFile(
  path: string,
  signal: AbortSignal,
  onBytes: (count: number) => void = () => undefined,
): Promise<string> {
  signal.throwIfAborted();
  const hash = createHash("sha256");
  try {
    for await (const chunk of createReadStream(path, { highWaterMark: 2 ** 20, signal })) {
      hash.update(chunk as Buffer);
      onBytes((chunk as Buffer).length);
    }
  } catch (error) {
    signal.throwIfAborted();
    throw error;
  }
  return hash.digest("hex");
}
