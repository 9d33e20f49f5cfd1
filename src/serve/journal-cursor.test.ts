import { appendFileSync, mkdtempSync, renameSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { JournalCursor } from "./journal-cursor.js";

let folder: string;
let path: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "symvirt-cursor-"));
  path = join(folder, "journal.jsonl");
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const texts = (cursor: JournalCursor, most = 100) => {
  const lines = cursor.read(most);
  return lines === "moved" ? lines : lines.map((l) => `${l.number}:${l.text}`);
};

describe("journal cursor", () => {
  it("reads complete lines as they come, also before there is a file", () => {
    const cursor = new JournalCursor(path);
    expect(texts(cursor)).toEqual([]);
    writeFileSync(path, "a\nb\nha");
    expect(texts(cursor, 1)).toEqual(["1:a"]);
    expect(texts(cursor)).toEqual(["2:b"]);
    expect(texts(cursor)).toEqual([]);
    appendFileSync(path, "lf\n");
    expect(texts(cursor)).toEqual(["3:half"]);
  });

  it("is not confused by a half line that is cut off, nor by a long one", () => {
    writeFileSync(path, "a\nha");
    const cursor = new JournalCursor(path);
    expect(texts(cursor)).toEqual(["1:a"]);
    truncateSync(path, 2);
    const long = "ü".repeat(200_000);
    appendFileSync(path, `${long}\nc\n`);
    expect(texts(cursor)).toEqual([`2:${long}`, "3:c"]);
  });

  it("skips to a line, and says when there are fewer", () => {
    writeFileSync(path, "a\nb\nc\n");
    const cursor = new JournalCursor(path);
    expect(cursor.skip(2)).toBe(true);
    expect(texts(cursor)).toEqual(["3:c"]);
    expect(new JournalCursor(path).skip(4)).toBe(false);
  });

  it("begins anew with another journal", () => {
    writeFileSync(path, "a\nb\n");
    const cursor = new JournalCursor(path);
    texts(cursor);
    renameSync(path, `${path}.old`);
    expect(texts(cursor)).toBe("moved");
    writeFileSync(path, "x\n");
    expect(texts(cursor)).toEqual(["1:x"]);
  });
});
