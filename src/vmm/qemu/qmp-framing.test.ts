import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { QmpProtocolError } from "./qmp-errors.js";
import { QmpLineReader } from "./qmp-framing.js";

/** Feeds `bytes` cut at the given places. */
function read(reader: QmpLineReader, bytes: Buffer, cuts: number[] = []): Record<string, unknown>[] {
  const places = [...new Set(cuts.map((cut) => cut % (bytes.length + 1)))].sort((a, b) => a - b);
  const objects: Record<string, unknown>[] = [];
  let start = 0;
  for (const end of [...places, bytes.length]) {
    objects.push(...reader.push(bytes.subarray(start, end)));
    start = end;
  }
  return objects;
}

describe("QmpLineReader", () => {
  it("yields the same objects however the stream is cut", () => {
    const object = fc.dictionary(fc.string({ unit: "binary" }), fc.jsonValue({ maxDepth: 4 }));
    fc.assert(
      fc.property(fc.array(object, { maxLength: 8 }), fc.array(fc.nat()), (objects, cuts) => {
        const bytes = Buffer.from(objects.map((one) => `${JSON.stringify(one)}\r\n`).join(""));
        const expected = objects.map((one) => JSON.parse(JSON.stringify(one)));
        expect(read(new QmpLineReader(), bytes, cuts)).toEqual(expected);
      }),
    );
  });

  it("throws nothing but QmpProtocolError on any bytes", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), fc.array(fc.nat()), (bytes, cuts) => {
        const reader = new QmpLineReader({ lineBytes: 64, nesting: 4 });
        try {
          for (const object of read(reader, Buffer.from(bytes), cuts)) expect(typeof object).toBe("object");
        } catch (error) {
          expect(error).toBeInstanceOf(QmpProtocolError);
        }
      }),
    );
  });

  it("refuses a 20 MB line without keeping it, and takes one of just the limit", () => {
    const reader = new QmpLineReader();
    const megabyte = Buffer.alloc(2 ** 20, "a");
    expect(() => {
      for (let i = 0; i < 20; i++) Array.from(reader.push(megabyte));
    }).toThrow(/longer than 16777216 bytes/);
    const small = new QmpLineReader({ lineBytes: 9 });
    expect([...small.push(Buffer.from('{"a":12}\r\n'))]).toEqual([{ a: 12 }]);
    expect(() => [...small.push(Buffer.from('{"a":123}\r\n'))]).toThrow(QmpProtocolError);
  });

  it("refuses deep nesting before parsing it, brackets in strings aside", () => {
    const deep = (levels: number) => Buffer.from(`{"a":${"[".repeat(levels)}${"]".repeat(levels)}}\n`);
    expect([...new QmpLineReader().push(deep(63))]).toHaveLength(1);
    expect(() => [...new QmpLineReader().push(deep(64))]).toThrow(/deeper than 64/);
    const text = `${"[".repeat(500)}\\"{`;
    const line = Buffer.from(`${JSON.stringify({ a: text })}\n`);
    expect([...new QmpLineReader().push(line)]).toEqual([{ a: text }]);
  });

  it.each([
    ["broken UTF-8", Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d, 0x0a]), /not UTF-8/],
    ["no JSON", Buffer.from("HTTP/1.1 400\r\n"), /not JSON \(near "HTTP/],
    ["an array", Buffer.from("[1]\n"), /not a JSON object/],
    ["null", Buffer.from("null\n"), /not a JSON object/],
    ["a control character in the excerpt", Buffer.from("\u001b[31m\n"), /near " \[31m"/],
  ])("refuses %s", (_name, bytes, message) => {
    expect(() => [...new QmpLineReader().push(bytes)]).toThrow(message);
  });
});
