/**
 * The agent's side of the protocol with the host: sessions, lines in and out. What the lines mean is
 * the agent's business (agent.ts); here only lines of the current session get through.
 */
import { hostname, release } from "node:os";
import type { Logger } from "pino";
import { encodeLine, LineDecoder, RESET_BYTE } from "../protocol/framing.js";
import {
  ANNOUNCE_SESSION,
  type BoardPart,
  type GuestHello,
  type GuestPeers,
  type GuestPost,
  type GuestSample,
  type GuestState,
  hostMessage,
  PROTOCOL_VERSION,
  type Want,
} from "../protocol/messages.js";
import type { HostPort, HostPortEvents } from "./host-port.js";
import { atMostEvery } from "./throttle.js";

/** With this much waiting for the host, the ranks are not read. */
const HIGH_WATER_BYTES = 4 << 20;

/** A hello and a small state. */
const IDLE_BYTES = 16 * 1024;

export interface HostLinkEvents {
  /** A new session: what the old host wanted is void. */
  session(): void;
  /** The host repeats itself within a session: tell it the state again. */
  again(): void;
  want(want: Want): void;
  board(part: BoardPart): void;
  query(id: number, peers: boolean): void;
  sample(id: number): void;
  /** True: stop taking posts; false: go on. */
  congested(congested: boolean): void;
  failed(error: unknown): void;
}

export interface HostLinkOptions {
  openPort: (events: HostPortEvents) => HostPort;
  agentVersion: string;
  bootId: string;
  log: Logger;
  events: HostLinkEvents;
}

export class HostLink {
  readonly #options: HostLinkOptions;
  readonly #port: HostPort;
  readonly #decoder = new LineDecoder();
  readonly #sometimes = atMostEvery(1000);
  #session: string | undefined;
  #seq = 0;
  #congested = false;
  #droppedBefore = 0;

  constructor(options: HostLinkOptions) {
    this.#options = options;
    this.#port = options.openPort({
      opened: () => this.#opened(),
      data: (chunk) => this.#data(chunk),
      away: () => this.#away(),
      drained: () => this.#setCongested(false),
      failed: (error) => options.events.failed(error),
    });
  }

  /** True once the host has said hello. */
  get inSession(): boolean {
    return this.#session !== undefined;
  }

  /** Hardly anything is waiting to go out. */
  get isIdle(): boolean {
    return this.#port.queuedBytes < IDLE_BYTES;
  }

  get congested(): boolean {
    return this.#congested;
  }

  state(state: Omit<GuestState, "type" | "session" | "seq">): void {
    if (this.#session === undefined) return;
    this.#seq++;
    this.#send({ type: "state", session: this.#session, seq: this.#seq, ...state } satisfies GuestState);
  }

  post(post: Omit<GuestPost, "type" | "session">): void {
    if (this.#session === undefined) return;
    this.#send({ type: "post", session: this.#session, ...post } satisfies GuestPost);
  }

  peers(peers: Omit<GuestPeers, "type" | "session">): void {
    if (this.#session === undefined) return;
    this.#send({ type: "peers", session: this.#session, ...peers } satisfies GuestPeers);
  }

  sample(sample: Omit<GuestSample, "type" | "session">): void {
    if (this.#session === undefined) return;
    this.#send({ type: "sample", session: this.#session, ...sample } satisfies GuestSample);
  }

  close(): void {
    this.#port.close();
  }

  #opened(): void {
    this.#decoder.reset();
    this.#session = undefined;
    // A predecessor may have died in the middle of a line; and the host, still connected, must learn
    // that this agent knows nothing.
    this.#port.write(Buffer.of(RESET_BYTE));
    this.#send(this.#hello(ANNOUNCE_SESSION));
    this.#options.log.info("host port open, announced");
  }

  #away(): void {
    this.#options.log.info("host end of the port is away");
    this.#decoder.reset();
    this.#session = undefined;
    this.#setCongested(false);
  }

  #data(chunk: Buffer): void {
    for (const line of this.#decoder.push(chunk)) this.#line(line);
    const { oversize, malformed } = this.#decoder.dropped;
    if (oversize + malformed > this.#droppedBefore) {
      this.#droppedBefore = oversize + malformed;
      this.#sometimes(() =>
        this.#options.log.warn({ dropped: this.#decoder.dropped }, "dropped lines of the host"),
      );
    }
  }

  #line(line: string): void {
    let value: unknown;
    try {
      value = JSON.parse(line);
    } catch {
      this.#sometimes(() => this.#options.log.warn({ line: line.slice(0, 80) }, "host line is no JSON"));
      return;
    }
    const parsed = hostMessage.safeParse(value);
    if (!parsed.success) {
      const issue = parsed.error.issues[0];
      const where = issue?.path.join(".") ?? "";
      this.#sometimes(() =>
        this.#options.log.warn({ where, issue: issue?.message }, "host line is not valid"),
      );
      return;
    }
    const message = parsed.data;
    if (message.type === "hello") {
      this.#hostHello(message.session, message.v);
      return;
    }
    if (message.session !== this.#session) {
      this.#sometimes(() => this.#options.log.warn({ type: message.type }, "host line of another session"));
      return;
    }
    const { events } = this.#options;
    switch (message.type) {
      case "want":
        events.want(message);
        break;
      case "board":
        events.board(message);
        break;
      case "query":
        events.query(message.id, message.peers === true);
        break;
      case "sample":
        events.sample(message.id);
        break;
    }
  }

  #hostHello(session: string, version: number): void {
    if (session === ANNOUNCE_SESSION) return;
    // Another version is answered all the same: the host reads ours and decides.
    if (version !== PROTOCOL_VERSION)
      this.#options.log.warn({ version }, "the host speaks another protocol version");
    const isNew = session !== this.#session;
    this.#session = session;
    if (isNew) this.#seq = 0;
    this.#send(this.#hello(session));
    if (isNew) {
      this.#options.log.info({ session }, "host session");
      this.#options.events.session();
    } else this.#options.events.again();
  }

  #hello(session: string): GuestHello {
    return {
      type: "hello",
      v: PROTOCOL_VERSION,
      session,
      agentVersion: this.#options.agentVersion.slice(0, 32),
      hostname: hostname().slice(0, 64),
      kernel: release().slice(0, 64),
      bootId: this.#options.bootId.slice(0, 64),
    };
  }

  #send(message: GuestHello | GuestState | GuestPost | GuestPeers | GuestSample): void {
    this.#port.write(encodeLine(message));
    if (this.#port.queuedBytes >= HIGH_WATER_BYTES) this.#setCongested(true);
  }

  #setCongested(congested: boolean): void {
    if (this.#congested === congested) return;
    this.#congested = congested;
    this.#options.events.congested(congested);
  }
}
