/**
 * The QMP session of one VM, dialled when first needed and again after it was lost. Re-dialling never
 * repeats a command: whoever sent the one that was lost looks at the state and decides.
 */
import { SymvirtError } from "../../errors.js";
import { anySignal } from "../../signals.js";
import { dial } from "../dial.js";
import { QmpClient } from "./qmp-client.js";
import type { EventListener, QmpEvent } from "./qmp-events.js";
import type { QmpArguments, QmpCommandName, QmpEventName, QmpReply } from "./qmp-types.js";

/** QEMU greets at once, unless it serves another client; a busy host under TCG gets this much patience. */
const GREETING_MS = 10_000;

/** Where one VM's VMM is and how to reach it. */
export interface QemuTarget {
  vm: string;
  host: string;
  dial: readonly string[];
  qmp: string;
  channel: string;
}

export class QemuSession {
  readonly target: QemuTarget;
  #client: Promise<QmpClient> | undefined;
  #closing = new AbortController();
  #ended = false;

  constructor(target: QemuTarget) {
    this.target = target;
  }

  /** "vm1 on h2", for messages. */
  get name(): string {
    return `${this.target.vm} on ${this.target.host}`;
  }

  /** Sends a command; errors as QmpClient.execute. */
  async execute<C extends QmpCommandName>(
    command: C,
    args: QmpArguments<C>,
    signal: AbortSignal,
  ): Promise<QmpReply<C>> {
    return (await this.client(signal)).execute(command, args, signal);
  }

  /** A listener on the present connection; call before the command that causes the event. */
  async listen(
    names: readonly QmpEventName[],
    signal: AbortSignal,
    accepts?: (event: QmpEvent) => boolean,
  ): Promise<EventListener> {
    return (await this.client(signal)).listen(names, accepts);
  }

  /** The negotiated client. Concurrent callers share one dial; it lives by the first caller's signal. */
  async client(signal: AbortSignal): Promise<QmpClient> {
    if (this.#ended)
      throw new SymvirtError("interrupted", `QMP of ${this.name}: its operation has been given up`);
    const shared = this.#client;
    if (shared !== undefined) {
      const client = await shared.catch(() => undefined); // its error is for who dialled
      if (client !== undefined && !client.closed) return client;
      // Somebody else may have dialled meanwhile: QEMU serves one client at a time.
      if (this.#client !== shared) return this.client(signal);
    }
    this.#client = this.#open(signal);
    return this.#client;
  }

  /** Ends the session; pending commands and a dial under way are rejected. Idempotent; a later command dials again. */
  async close(): Promise<void> {
    const client = this.#client;
    this.#client = undefined;
    this.#closing.abort(new SymvirtError("interrupted", "session closed"));
    this.#closing = new AbortController();
    (await client?.catch(() => undefined))?.close();
  }

  /** As close, and no command dials again: work that was given up must not hold QEMU's one QMP connection. */
  async end(): Promise<void> {
    this.#ended = true;
    await this.close();
  }

  async #open(signal: AbortSignal): Promise<QmpClient> {
    const { dial: argv, qmp } = this.target;
    const patience = AbortSignal.timeout(GREETING_MS);
    const limited = anySignal([signal, this.#closing.signal, patience]);
    const stream = await dial({ dial: argv, socket: qmp, what: `QMP of ${this.name}` }, limited);
    try {
      return await QmpClient.open(stream, { where: `QMP of ${this.name} (${qmp})`, signal: limited });
    } catch (error) {
      // Our own patience ended, not the caller's: the VMM does not answer.
      if (limited.reason === patience.reason && patience.aborted && error instanceof SymvirtError) {
        throw new SymvirtError("unreachable", error.message, { hint: error.hint ?? "", cause: error });
      }
      throw error;
    }
  }
}
