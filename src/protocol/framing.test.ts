import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { encodeLine, LineDecoder, MAX_NESTING } from "./framing.js";
import { MAX_LINE_BYTES } from "./messages.js";

/** Cuts `bytes` at the given places (taken modulo its length). */
function cut(bytes: Uint8Array, places: number[]): Uint8Array[] {
  const at = [...new Set(places.map((p) => p % (bytes.length + 1)))].sort((a, b) => a - b);
  const edges = [0, ...at, bytes.length];
  return edges.slice(1).map((end, i) => bytes.subarray(edges[i], end));
}

function decodeAll(decoder: LineDecoder, chunks: Iterable<Uint8Array>): string[] {
  const lines: string[] = [];
  for (const chunk of chunks) lines.push(...decoder.push(chunk));
  return lines;
}

describe("LineDecoder", () => {
  it("decodes a valid stream the same however it is cut", () => {
    const message = fc.record({
      type: fc.string(),
      n: fc.integer(),
      list: fc.array(fc.string({ unit: "grapheme" })),
    });
    fc.assert(
      fc.property(fc.array(message, { maxLength: 12 }), fc.array(fc.nat()), (messages, places) => {
        const bytes = Buffer.concat(messages.map((m) => encodeLine(m)));
        const lines = decodeAll(new LineDecoder(), cut(bytes, places));
        expect(lines.map((l) => JSON.parse(l) as unknown)).toEqual(messages);
      }),
    );
  });

  it("never throws and never holds more than its cap, whatever comes", () => {
    const piece = fc.oneof(
      fc.uint8Array({ maxLength: 200 }),
      fc.constantFrom(Buffer.from("\n"), Buffer.from([0xff]), Buffer.from("[[[["), Buffer.from('{"a":1}\n')),
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 60 }), (pieces) => {
        const decoder = new LineDecoder({ maxBytes: 300 });
        for (const p of pieces) {
          for (const line of decoder.push(p)) {
            expect(Buffer.byteLength(line)).toBeLessThanOrEqual(300);
            expect(line).not.toContain("\0");
          }
          expect(decoder.pendingBytes).toBeLessThanOrEqual(300);
        }
        // Whatever state garbage left it in, a reset byte makes the next line readable.
        expect(decoder.push(Buffer.from('\xff{"ok":1}\n', "latin1"))).toEqual(['{"ok":1}']);
      }),
    );
  });

  it("drops an oversize line up to its newline, counts it once, and reads on", () => {
    const decoder = new LineDecoder();
    const chunk = Buffer.alloc(1 << 20, 0x61);
    for (let i = 0; i < 10; i++) expect(decoder.push(chunk)).toEqual([]);
    expect(decoder.pendingBytes).toBe(0);
    expect(decoder.push(Buffer.from('\n{"a":1}\n'))).toEqual(['{"a":1}']);
    expect(decoder.dropped).toEqual({ oversize: 1, malformed: 0, reset: 0 });
  });

  it("takes a line of exactly the cap, in single bytes", () => {
    const decoder = new LineDecoder();
    const line = `"${"x".repeat(MAX_LINE_BYTES - 2)}"`;
    const bytes = Buffer.from(`${line}\n`);
    const lines: string[] = [];
    for (let i = 0; i < bytes.length; i++) lines.push(...decoder.push(bytes.subarray(i, i + 1)));
    expect(lines).toEqual([line]);
  });

  it("a reset byte voids what came before it on the line", () => {
    const decoder = new LineDecoder();
    expect(decoder.push(Buffer.from('{"half":\xff{"whole":1}\n', "latin1"))).toEqual(['{"whole":1}']);
    expect(decoder.dropped.reset).toBe(1);
    expect(decoder.push(Buffer.from("\xff", "latin1"))).toEqual([]);
    expect(decoder.dropped.reset).toBe(1);
  });

  it("a reset byte ends the skipping of an oversize line", () => {
    const decoder = new LineDecoder({ maxBytes: 8 });
    expect(decoder.push(Buffer.from('0123456789abcdef\xff{"a":1}\n', "latin1"))).toEqual(['{"a":1}']);
  });

  it.each([
    ["bad UTF-8", Buffer.from([0x22, 0xc3, 0x28, 0x22, 0x0a])],
    ["NUL", Buffer.from('{"a":"\0"}\n')],
    ["too deep", Buffer.from(`${"[".repeat(MAX_NESTING + 1)}${"]".repeat(MAX_NESTING + 1)}\n`)],
  ])("drops %s and counts it", (_, bytes) => {
    const decoder = new LineDecoder();
    expect(decoder.push(bytes)).toEqual([]);
    expect(decoder.dropped.malformed).toBe(1);
    expect(decoder.push(Buffer.from("1\n"))).toEqual(["1"]);
  });

  it("does not count brackets inside strings as nesting", () => {
    const decoder = new LineDecoder();
    const line = JSON.stringify({ a: `\\"${"[".repeat(100)}` });
    expect(decoder.push(Buffer.from(`${line}\n`))).toEqual([line]);
    const deepest = "[".repeat(MAX_NESTING) + "]".repeat(MAX_NESTING);
    expect(decoder.push(Buffer.from(`${deepest}\n`))).toEqual([deepest]);
  });
});
