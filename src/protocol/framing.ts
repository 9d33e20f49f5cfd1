/**
 * Lines of JSON over a byte stream neither end trusts. The decoder hands out only text that is safe
 * to give to JSON.parse: valid UTF-8, no NUL, bounded length, bounded nesting (deep nesting parses, but
 * breaks whatever walks the value afterwards). Everything else is dropped and counted.
 */
import { isUtf8 } from "node:buffer";
import { MAX_LINE_BYTES } from "./messages.js";

/** Never part of UTF-8: whatever came before it on the line is void (a peer restarted half-way). */
export const RESET_BYTE = 0xff;
export const MAX_NESTING = 32;

const NEWLINE = 0x0a;

export interface LineDecoderOptions {
  /** Longest line accepted, without its newline. */
  maxBytes?: number;
}

/** What a decoder has thrown away so far; a peer with many of these is broken or hostile. */
export interface DroppedLines {
  /** Lines longer than the cap. */
  oversize: number;
  /** Lines with bad UTF-8, a NUL, or nested too deep. */
  malformed: number;
  /** Partial lines voided by a reset byte. */
  reset: number;
}

/**
 * Cuts a byte stream into lines. Memory is capped by `maxBytes` whatever comes in; it never throws.
 * Empty lines and a trailing carriage return are ignored.
 */
export class LineDecoder {
  readonly dropped: DroppedLines = { oversize: 0, malformed: 0, reset: 0 };
  readonly #maxBytes: number;
  #parts: Uint8Array[] = [];
  #bytes = 0;
  #skipping = false;

  constructor(options: LineDecoderOptions = {}) {
    this.#maxBytes = options.maxBytes ?? MAX_LINE_BYTES;
  }

  /** Bytes of the unfinished line held now. */
  get pendingBytes(): number {
    return this.#bytes;
  }

  /** Takes the next bytes, in any chunking, and returns the complete lines they ended. */
  push(chunk: Uint8Array): string[] {
    const lines: string[] = [];
    let start = 0;
    while (start < chunk.length) {
      const newline = chunk.indexOf(NEWLINE, start);
      const end = newline === -1 ? chunk.length : newline;
      this.#append(chunk.subarray(start, end));
      if (newline === -1) break;
      const line = this.#finish();
      if (line !== undefined) lines.push(line);
      start = newline + 1;
    }
    return lines;
  }

  /** Forgets an unfinished line (the stream began anew). */
  reset(): void {
    this.#parts = [];
    this.#bytes = 0;
    this.#skipping = false;
  }

  #append(piece: Uint8Array): void {
    const mark = piece.lastIndexOf(RESET_BYTE);
    let rest = piece;
    if (mark !== -1) {
      if (this.#bytes > 0 || mark > 0) this.dropped.reset++;
      this.reset();
      rest = piece.subarray(mark + 1);
    }
    if (this.#skipping || rest.length === 0) return;
    if (this.#bytes + rest.length > this.#maxBytes) {
      this.dropped.oversize++;
      this.reset();
      this.#skipping = true;
      return;
    }
    // A copy: the caller's chunk may be a view of a large pooled buffer.
    this.#parts.push(Uint8Array.prototype.slice.call(rest));
    this.#bytes += rest.length;
    // One-byte chunks must not cost an object each for ever.
    if (this.#parts.length >= 256) this.#parts = [Buffer.concat(this.#parts)];
  }

  #finish(): string | undefined {
    const skipped = this.#skipping;
    const bytes = Buffer.concat(this.#parts);
    this.reset();
    if (skipped || bytes.length === 0) return undefined;
    if (!isUtf8(bytes) || bytes.includes(0)) {
      this.dropped.malformed++;
      return undefined;
    }
    const text = bytes.toString("utf8").trim();
    if (text === "") return undefined;
    if (nestsDeeperThan(text, MAX_NESTING)) {
      this.dropped.malformed++;
      return undefined;
    }
    return text;
  }
}

/** One message as one line. JSON.stringify leaves no raw newline, so the line ends where we say. */
export function encodeLine(message: object): Buffer {
  return Buffer.from(`${JSON.stringify(message)}\n`, "utf8");
}

/** True if the JSON text opens more than `limit` arrays and objects inside each other. */
function nestsDeeperThan(text: string, limit: number): boolean {
  let depth = 0;
  let inString = false;
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (inString) {
      if (c === 0x5c) i++;
      else if (c === 0x22) inString = false;
    } else if (c === 0x22) inString = true;
    else if (c === 0x5b || c === 0x7b) {
      if (++depth > limit) return true;
    } else if (c === 0x5d || c === 0x7d) depth--;
  }
  return false;
}
