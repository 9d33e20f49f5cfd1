/**
 * A scripted QMP server on a unix socket. Strict: commands must come in the order of the script with
 * exactly the arguments given; anything else is recorded and ends the connection. Commands with a
 * standing answer may come at any time (polls).
 */
import { mkdtemp, rm } from "node:fs/promises";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";

export type Answer =
  | { return: unknown }
  | { error: { class: string; desc: string } }
  /** Raw bytes instead of a reply. */
  | { raw: string | Buffer }
  | { hangUp: true }
  | { silence: true };

export interface Step {
  execute: string;
  arguments?: unknown;
  /** Sent before the answer. */
  events?: { event: string; data?: unknown }[];
  answer?: Answer;
}

export interface FakeQmpOptions {
  script?: Step[];
  standing?: Record<string, (args: unknown) => Answer>;
  /** Sent instead of the greeting. */
  greeting?: string | Buffer;
}

const GREETING = {
  QMP: { version: { qemu: { major: 7, minor: 2, micro: 0 }, package: "fake" }, capabilities: ["oob"] },
};

export class FakeQmp {
  readonly path: string;
  /** What the client did wrong; a test expects this to be empty. */
  readonly faults: string[] = [];
  readonly received: string[] = [];
  connections = 0;
  readonly #folder: string;
  readonly #server: Server;
  readonly #options: FakeQmpOptions;
  readonly #script: Step[];
  readonly #sockets = new Set<Socket>();

  static async start(options: FakeQmpOptions = {}): Promise<FakeQmp> {
    const folder = await mkdtemp(join(tmpdir(), "symvirt-fakeqmp-"));
    const fake = new FakeQmp(folder, options);
    await new Promise<void>((resolve, reject) => {
      fake.#server.once("error", reject);
      fake.#server.listen(fake.path, resolve);
    });
    return fake;
  }

  private constructor(folder: string, options: FakeQmpOptions) {
    this.#folder = folder;
    this.path = join(folder, "qmp");
    this.#options = options;
    this.#script = [...(options.script ?? [])];
    this.#server = createServer((socket) => this.#serve(socket));
  }

  /** Steps the client has not come to. */
  get left(): string[] {
    return this.#script.map((step) => step.execute);
  }

  send(message: unknown): void {
    for (const socket of this.#sockets) socket.write(`${JSON.stringify(message)}\r\n`);
  }

  hangUp(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  async end(): Promise<void> {
    this.hangUp();
    await new Promise((resolve) => this.#server.close(resolve));
    await rm(this.#folder, { recursive: true, force: true });
  }

  #serve(socket: Socket): void {
    this.connections++;
    this.#sockets.add(socket);
    socket.once("close", () => this.#sockets.delete(socket));
    socket.on("error", () => {});
    socket.write(this.#options.greeting ?? `${JSON.stringify(GREETING)}\r\n`);
    let text = "";
    socket.on("data", (chunk) => {
      text += chunk.toString();
      for (let end = text.indexOf("\n"); end !== -1; end = text.indexOf("\n")) {
        const line = text.slice(0, end);
        text = text.slice(end + 1);
        this.#command(socket, JSON.parse(line));
      }
    });
  }

  #command(socket: Socket, command: { execute: string; arguments?: unknown; id: string }): void {
    const { execute, id } = command;
    if (execute === "qmp_capabilities") {
      this.#answer(socket, id, { return: {} });
      return;
    }
    this.received.push(execute);
    const standing = this.#options.standing?.[execute];
    const step = this.#script[0];
    if (step?.execute === execute) {
      this.#script.shift();
      if (step.arguments !== undefined && !isDeepStrictEqual(step.arguments, command.arguments)) {
        this.faults.push(`${execute} with ${JSON.stringify(command.arguments)}`);
      }
      for (const event of step.events ?? []) {
        socket.write(`${JSON.stringify({ timestamp: { seconds: 0, microseconds: 0 }, ...event })}\r\n`);
      }
      this.#answer(socket, id, step.answer ?? { return: {} });
    } else if (standing !== undefined) {
      this.#answer(socket, id, standing(command.arguments));
    } else {
      this.faults.push(`unexpected ${execute}, the script says ${step?.execute ?? "nothing more"}`);
      socket.destroy();
    }
  }

  #answer(socket: Socket, id: string, answer: Answer): void {
    if ("silence" in answer) return;
    if ("hangUp" in answer) socket.destroy();
    else if ("raw" in answer) socket.write(answer.raw);
    else socket.write(`${JSON.stringify({ ...answer, id })}\r\n`);
  }
}
