/** A reader's place in the journal: complete lines only, by number, as they come. */
import { closeSync, fstatSync, openSync, readSync } from "node:fs";

const CHUNK = 64 * 1024;

export interface JournalLine {
  /** From 1. */
  number: number;
  text: string;
}

export class JournalCursor {
  readonly #path: string;
  #offset = 0;
  #number = 0;
  #inode: number | undefined;

  constructor(path: string) {
    this.#path = path;
  }

  /** Number of the last line read. */
  get number(): number {
    return this.#number;
  }

  /**
   * The next complete lines, at most `most`. "moved": the file is another one than before (moved away by hand) and
   * will be read from its first line.
   */
  read(most: number): JournalLine[] | "moved" {
    let fd: number;
    try {
      fd = openSync(this.#path, "r");
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
      return this.#inode === undefined ? [] : this.#restart();
    }
    try {
      const { ino, size } = fstatSync(fd);
      const isOther = this.#inode !== undefined && (ino !== this.#inode || size < this.#offset);
      if (isOther) return this.#restart();
      this.#inode = ino;
      return this.#lines(fd, most);
    } finally {
      closeSync(fd);
    }
  }

  /** Goes behind line `number`; false when there are fewer, and then it is at the end. */
  skip(number: number): boolean {
    while (this.#number < number) {
      const lines = this.read(Math.min(number - this.#number, 1000));
      if (lines === "moved" || lines.length === 0) return false;
    }
    return true;
  }

  #restart(): "moved" {
    this.#offset = 0;
    this.#number = 0;
    this.#inode = undefined;
    return "moved";
  }

  #lines(fd: number, most: number): JournalLine[] {
    const lines: JournalLine[] = [];
    let rest: Buffer = Buffer.alloc(0);
    let at = this.#offset;
    while (lines.length < most) {
      const chunk = Buffer.alloc(CHUNK);
      const count = readSync(fd, chunk, 0, CHUNK, at);
      if (count === 0) break;
      at += count;
      rest = Buffer.concat([rest, chunk.subarray(0, count)]);
      for (let end = rest.indexOf(0x0a); end >= 0 && lines.length < most; end = rest.indexOf(0x0a)) {
        this.#offset += end + 1;
        this.#number++;
        lines.push({ number: this.#number, text: rest.subarray(0, end).toString("utf8") });
        rest = rest.subarray(end + 1);
      }
    }
    return lines;
  }
}
