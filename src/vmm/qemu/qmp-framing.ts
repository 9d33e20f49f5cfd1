/**
 * Bytes from QEMU to JSON objects, one a line. QEMU is semi-trusted: its line length and nesting are
 * capped and its UTF-8 is checked before JSON.parse sees a byte (JSON.parse itself takes any depth, and
 * what it returns then overflows the stack of whoever walks it).
 */
import { isUtf8 } from "node:buffer";
import { QmpProtocolError } from "./qmp-errors.js";

export const MAX_QMP_LINE_BYTES = 16 * 1024 * 1024;
/** query-qmp-schema, the deepest reply in use, has 5. */
export const MAX_QMP_NESTING = 64;

export interface FramingLimits {
  lineBytes: number;
  nesting: number;
}

const NEWLINE = 0x0a;

/** Cuts a byte stream into lines and parses each; memory is bounded by `limits.lineBytes` and one chunk. */
export class QmpLineReader {
  readonly #limits: FramingLimits;
  #parts: Buffer[] = [];
  #length = 0;

  constructor(limits: Partial<FramingLimits> = {}) {
    this.#limits = {
      lineBytes: limits.lineBytes ?? MAX_QMP_LINE_BYTES,
      nesting: limits.nesting ?? MAX_QMP_NESTING,
    };
  }

  /** Yields the objects completed by this chunk. Throws QmpProtocolError; the stream is unusable then. */
  *push(chunk: Buffer): Generator<Record<string, unknown>> {
    let start = 0;
    for (;;) {
      const end = chunk.indexOf(NEWLINE, start);
      const part = chunk.subarray(start, end === -1 ? chunk.length : end);
      if (this.#length + part.length > this.#limits.lineBytes) {
        this.#parts = [];
        throw new QmpProtocolError(`a line is longer than ${this.#limits.lineBytes} bytes`);
      }
      if (part.length > 0) {
        this.#parts.push(part);
        this.#length += part.length;
      }
      if (end === -1) return;
      const line = this.#parts.length === 1 ? this.#parts[0] : Buffer.concat(this.#parts, this.#length);
      this.#parts = [];
      this.#length = 0;
      start = end + 1;
      const object = line === undefined ? undefined : parseLine(line, this.#limits.nesting);
      if (object !== undefined) yield object;
    }
  }
}

/** One line without its newline; undefined for a blank one (QEMU ends lines with CR LF). */
function parseLine(line: Buffer, maxNesting: number): Record<string, unknown> | undefined {
  if (!isUtf8(line)) throw new QmpProtocolError("a line is not UTF-8", excerpt(line));
  if (nesting(line) > maxNesting) {
    throw new QmpProtocolError(`a line nests deeper than ${maxNesting} levels`, excerpt(line));
  }
  const text = line.toString("utf8").trim();
  if (text === "") return undefined;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new QmpProtocolError("a line is not JSON", excerpt(line), error);
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new QmpProtocolError("a line is not a JSON object", excerpt(line));
  }
  return value as Record<string, unknown>;
}

/** Greatest depth of brackets outside strings. */
function nesting(line: Buffer): number {
  let depth = 0;
  let deepest = 0;
  let inString = false;
  for (let i = 0; i < line.length; i++) {
    const byte = line[i];
    if (inString) {
      if (byte === 0x5c) i++;
      else if (byte === 0x22) inString = false;
    } else if (byte === 0x22) inString = true;
    else if (byte === 0x7b || byte === 0x5b) deepest = Math.max(deepest, ++depth);
    else if (byte === 0x7d || byte === 0x5d) depth--;
  }
  return deepest;
}

/** The start of an offending line, safe to print. */
function excerpt(line: Buffer): string {
  return line
    .subarray(0, 80)
    .toString("utf8")
    .replace(/[\p{Cc}\p{Cf}]+/gu, " ");
}
