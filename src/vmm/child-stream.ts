/** A child's standard input and output as one stream which owns the child: destroy ends it. */
import type { ChildProcessWithoutNullStreams } from "node:child_process";
import { Duplex } from "node:stream";
import { SymvirtError } from "../errors.js";

/** Of what the child said on stderr, this much of the end is quoted in an error. */
const STDERR_TAIL = 512;

export class ChildStream extends Duplex {
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #what: string;
  #stderr = "";

  constructor(child: ChildProcessWithoutNullStreams, what: string) {
    super({ allowHalfOpen: true, emitClose: true });
    this.#child = child;
    this.#what = what;
    child.stdout.on("data", (chunk: Buffer) => {
      if (!this.push(chunk)) child.stdout.pause();
    });
    child.stderr.on("data", (chunk: Buffer) => {
      this.#stderr = (this.#stderr + chunk.toString("utf8")).slice(-STDERR_TAIL);
    });
    // A write to a child that has ended fails with EPIPE; its exit says more.
    child.stdin.on("error", () => {});
    child.on("close", (code, signal) => this.#ended(code, signal));
  }

  override _read(): void {
    this.#child.stdout.resume();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#child.stdin.write(chunk, (error) => done(error));
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#child.stdin.end(() => done());
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    if (this.#child.exitCode === null && this.#child.signalCode === null) this.#child.kill("SIGTERM");
    done(error);
  }

  #ended(code: number | null, signal: NodeJS.Signals | null): void {
    if (this.destroyed) return;
    if (code === 0) {
      this.push(null);
      return;
    }
    const said = this.#stderr.replace(/[\p{Cc}\p{Cf}]+/gu, " ").trim();
    const ended = signal === null ? `exit code ${code}` : `killed by ${signal}`;
    this.destroy(
      new SymvirtError("unreachable", `${this.#what} ended with ${ended}${said === "" ? "" : `: ${said}`}`, {
        hint: 'try the "dial" command of the host by hand, with the socket\'s path for "{socket}"',
      }),
    );
  }
}
