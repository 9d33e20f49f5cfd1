/**
 * One QMP session over one stream. Negotiated before anything else can be sent; then commands by id and
 * events by listener. It ends once: by `close`, by the far end, or by a line which is not QMP. The first
 * cause wins, and every pending and later command gets it.
 */
import type { Duplex } from "node:stream";
import type { z } from "zod";
import { SymvirtError } from "../../errors.js";
import { abortError } from "../deadline.js";
import { QmpClosedError, QmpCommandError, QmpProtocolError } from "./qmp-errors.js";
import { EventListener, type QmpEvent } from "./qmp-events.js";
import { type FramingLimits, QmpLineReader } from "./qmp-framing.js";
import {
  type QmpArguments,
  type QmpCommandName,
  type QmpEventName,
  type QmpReply,
  qmpCommands,
  qmpError,
  qmpEvent,
  qmpGreeting,
  qmpReturn,
} from "./qmp-types.js";

export interface QmpClientOptions {
  /** For messages: which VM, host and socket, e.g. "QMP of vm1 on h2 (/run/x/vm1.qmp)". */
  where: string;
  signal: AbortSignal;
  limits?: Partial<FramingLimits>;
}

interface Pending {
  command: string;
  resolve: (value: unknown) => void;
  reject: (error: Error) => void;
}

export class QmpClient {
  readonly #stream: Duplex;
  readonly #where: string;
  readonly #reader: QmpLineReader;
  readonly #pending = new Map<string, Pending>();
  readonly #listeners = new Set<EventListener>();
  #nextId = 1;
  #ended: QmpClosedError | undefined;
  #greeting: { resolve: (greeting: unknown) => void; reject: (error: Error) => void } | undefined;
  /** Replies nobody waited for any more (deadline passed), or never asked for; dropped. */
  unknownReplies = 0;

  private constructor(stream: Duplex, options: QmpClientOptions) {
    this.#stream = stream;
    this.#where = options.where;
    this.#reader = new QmpLineReader(options.limits);
  }

  /**
   * Takes over `stream`, waits for the greeting and negotiates. On failure the stream is destroyed.
   * Out-of-band execution is not enabled: nothing symvirt sends may overtake.
   */
  static async open(stream: Duplex, options: QmpClientOptions): Promise<QmpClient> {
    const client = new QmpClient(stream, options);
    const greeting = new Promise<unknown>((resolve, reject) => {
      client.#greeting = { resolve, reject };
    });
    const onAbort = () =>
      client.#end(
        abortError(
          options.signal,
          `${options.where}: no greeting`,
          "another QMP client may hold the socket: QEMU serves one at a time",
        ),
      );
    options.signal.addEventListener("abort", onAbort, { once: true });
    if (options.signal.aborted) onAbort();
    else client.#start();
    try {
      const parsed = qmpGreeting.safeParse(await greeting);
      if (!parsed.success) throw new QmpProtocolError("the first line is not a QMP greeting");
      await client.execute("qmp_capabilities", {}, options.signal);
      return client;
    } catch (error) {
      client.#end(error);
      throw error instanceof SymvirtError && !(error instanceof QmpProtocolError) ? error : client.#closed();
    } finally {
      options.signal.removeEventListener("abort", onAbort);
    }
  }

  get closed(): boolean {
    return this.#ended !== undefined;
  }

  /**
   * Sends one command and returns its validated reply.
   *
   * Throws QmpCommandError when QEMU refuses, QmpClosedError when the session has ended or ends, and the
   * abort's error when the signal comes first: then the command may still take effect in QEMU.
   */
  async execute<C extends QmpCommandName>(
    command: C,
    args: QmpArguments<C>,
    signal: AbortSignal,
  ): Promise<QmpReply<C>> {
    const checked = qmpCommands[command].args.parse(args);
    const reply = await this.#request(command, checked, signal);
    const parsed = (qmpCommands[command].reply as z.ZodType<QmpReply<C>>).safeParse(reply);
    if (!parsed.success) {
      const issue = parsed.error.issues[0];
      const path = issue?.path.join(".") ?? "";
      throw new QmpProtocolError(
        `reply to ${command} from ${this.#where}: ${path}: ${issue?.message ?? "?"}`,
      );
    }
    return parsed.data;
  }

  /** Queues the named events from now on; `close` the listener when done. */
  listen(names: readonly QmpEventName[], accepts: (event: QmpEvent) => boolean = () => true): EventListener {
    const wanted: ReadonlySet<string> = new Set(names);
    const listener = new EventListener(
      (event) => wanted.has(event.name) && accepts(event),
      (self) => this.#listeners.delete(self),
    );
    if (this.#ended === undefined) this.#listeners.add(listener);
    else listener.end(this.#ended);
    return listener;
  }

  /** Ends the session; pending commands are rejected. Idempotent, callable in any state. */
  close(): void {
    this.#end(new QmpClosedError(this.#where, "session closed"));
  }

  #start(): void {
    const stream = this.#stream;
    stream.on("data", (chunk: Buffer) => this.#receive(chunk));
    stream.on("error", (error) => this.#end(error));
    stream.on("end", () => this.#end(new QmpClosedError(this.#where, "QEMU closed the connection")));
    stream.on("close", () => this.#end(new QmpClosedError(this.#where, "connection lost")));
  }

  #request(command: string, args: object, signal: AbortSignal): Promise<unknown> {
    if (this.#ended !== undefined) return Promise.reject(this.#closed());
    if (signal.aborted) return Promise.reject(abortError(signal, `${this.#where}: ${command}`));
    const id = `symvirt-${this.#nextId++}`;
    return new Promise((resolve, reject) => {
      const settle = () => {
        this.#pending.delete(id);
        signal.removeEventListener("abort", onAbort);
      };
      const onAbort = () => {
        settle();
        reject(abortError(signal, `${this.#where}: no reply to ${command}`));
      };
      signal.addEventListener("abort", onAbort, { once: true });
      this.#pending.set(id, {
        command,
        resolve: (value) => {
          settle();
          resolve(value);
        },
        reject: (error) => {
          settle();
          reject(error);
        },
      });
      this.#stream.write(`${JSON.stringify({ execute: command, arguments: args, id })}\n`);
    });
  }

  #receive(chunk: Buffer): void {
    try {
      for (const message of this.#reader.push(chunk)) {
        if (this.#ended !== undefined) return;
        this.#dispatch(message);
      }
    } catch (error) {
      this.#end(error);
    }
  }

  #dispatch(message: Record<string, unknown>): void {
    if (this.#greeting !== undefined) {
      this.#greeting.resolve(message);
      this.#greeting = undefined;
      return;
    }
    if ("event" in message) {
      const event = qmpEvent.safeParse(message);
      if (!event.success) throw new QmpProtocolError("an event without a name");
      for (const listener of this.#listeners)
        listener.offer({ name: event.data.event, data: event.data.data });
      return;
    }
    if ("error" in message) {
      const reply = qmpError.safeParse(message);
      if (!reply.success) throw new QmpProtocolError("an error reply without class and description");
      const { class: errorClass, desc } = reply.data.error;
      // QEMU could not even read our line: no command can be matched, so nothing can be trusted to be paired.
      if (reply.data.id === undefined)
        throw new QmpProtocolError(`an error that answers no command: ${desc}`);
      const pending = this.#take(reply.data.id);
      pending?.reject(new QmpCommandError(this.#where, pending.command, errorClass, desc));
      return;
    }
    const reply = qmpReturn.safeParse(message);
    if (!reply.success || !("return" in message))
      throw new QmpProtocolError("neither reply, error nor event");
    if (reply.data.id === undefined) throw new QmpProtocolError("a reply without id");
    this.#take(reply.data.id)?.resolve(reply.data.return);
  }

  #take(id: string | number): Pending | undefined {
    const pending = this.#pending.get(String(id));
    if (pending === undefined) this.unknownReplies++;
    return pending;
  }

  #closed(): QmpClosedError {
    return this.#ended ?? new QmpClosedError(this.#where, "session closed");
  }

  #end(cause: unknown): void {
    if (this.#ended !== undefined) return;
    const message = cause instanceof Error ? cause.message : String(cause);
    const error = cause instanceof QmpClosedError ? cause : new QmpClosedError(this.#where, message, cause);
    this.#ended = error;
    // An abort during negotiation is its own error, with the deadline's exit code.
    this.#greeting?.reject(cause instanceof Error ? cause : error);
    this.#greeting = undefined;
    for (const pending of [...this.#pending.values()]) pending.reject(error);
    for (const listener of this.#listeners) listener.end(error);
    this.#listeners.clear();
    this.#stream.on("error", () => {}); // after the end, only the first cause counts
    this.#stream.destroy();
  }
}
