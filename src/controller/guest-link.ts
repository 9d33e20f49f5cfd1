/**
 * The host end of one VM's virtio-serial channel. It dials, says hello under a fresh random session until
 * the agent answers, reads only validated lines of that session, and after every reconnect tells
 * the agent everything again (the caller's `level`). The guest is not trusted: lines are capped and counted,
 * a guest that sends too much is read more slowly, and one that sends garbage is cut off (quarantined).
 */
import { randomBytes } from "node:crypto";
import { EventEmitter } from "node:events";
import type { Duplex } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { SymvirtError } from "../errors.js";
import { encodeLine, LineDecoder, RESET_BYTE } from "../protocol/framing.js";
import {
  ANNOUNCE_SESSION,
  type BoardPart,
  type GuestHello,
  type GuestMessage,
  type GuestPeers,
  type GuestPost,
  type GuestSample,
  type GuestState,
  guestMessage,
  MAX_LINE_BYTES,
  PROTOCOL_VERSION,
  type Want,
} from "../protocol/messages.js";
import { PeerPictures } from "./peer-pictures.js";
import { plainText } from "./plain-text.js";
import { TokenBucket } from "./token-bucket.js";

/** What the host tells again after every hello: parts of complete board sets first, then the wants. */
export type LevelMessage = Omit<BoardPart, "session"> | Omit<Want, "session">;

export interface GuestLinkOptions {
  vm: string;
  dial: (signal: AbortSignal) => Promise<Duplex>;
  level?: () => Iterable<LevelMessage>;
  /** Milliseconds; the defaults are for real use, tests shorten them. */
  helloEveryMs?: number;
  /**
   * With nothing heard for this long the agent is asked; for twice as long, hello is said anew, and then the agent
   * is given twice the time: a slow one that gets a new question before it has answered the last never answers any.
   */
  silenceMs?: number;
  redialMs?: number;
}

interface GuestLinkEvents {
  hello: [GuestHello];
  state: [GuestState];
  post: [GuestPost];
  peers: [GuestPeers];
  sample: [GuestSample];
  /** The connection or the agent's answer is gone; the link goes on trying. */
  down: [string];
  quarantined: [SymvirtError];
}

/** Times `silenceMs` that an agent is given at most. */
const MAX_PATIENCE = 16;
/** So long without a renewal, and half of it is enough. Milliseconds. */
const CALM_MS = 120_000;
const MAX_OVERSIZE = 3;
const MAX_BAD_LINES = 100;
const BYTES_PER_SECOND = 4 * 1024 * 1024;
const BURST_BYTES = 16 * 1024 * 1024;
/** States and hellos; posts are counted by their bytes. */
const MESSAGES_PER_SECOND = 200;

export class GuestLink extends EventEmitter<GuestLinkEvents> {
  readonly vm: string;
  readonly #options: Required<GuestLinkOptions>;
  #stop = new AbortController();
  #loop: Promise<void> = Promise.resolve();
  #socket: Duplex | undefined;
  #session = "";
  #greeted: GuestHello | undefined;
  #state: GuestState | undefined;
  #queue: Iterator<Buffer>[] = [];
  #writable = true;
  #oversize = 0;
  #bad = 0;
  #queryId = 0;
  #quarantine: SymvirtError | undefined;
  #lastTrouble = "not connected yet";
  #heardAt = 0;
  #patience = 1;
  /** When it was last raised or lowered. */
  #patienceAt = 0;

  constructor(options: GuestLinkOptions) {
    super();
    this.vm = options.vm;
    this.#options = { level: () => [], helloEveryMs: 1000, silenceMs: 3000, redialMs: 250, ...options };
  }

  /** Last valid state of the current session, undefined before the first. */
  get state(): GuestState | undefined {
    return this.#state;
  }

  /** The agent's hello of the current session, undefined while there is none. */
  get hello(): GuestHello | undefined {
    return this.#greeted;
  }

  get quarantined(): SymvirtError | undefined {
    return this.#quarantine;
  }

  /** Why there is no session now, in words. */
  get trouble(): string {
    return this.#quarantine?.message ?? this.#lastTrouble;
  }

  /** Connects and keeps connected until `stop`. A quarantined link gets one fresh budget by being started again. */
  start(): this {
    this.#stop.abort();
    const before = this.#loop;
    this.#stop = new AbortController();
    this.#quarantine = undefined;
    this.#oversize = 0;
    this.#bad = 0;
    this.#patience = 1;
    const { signal } = this.#stop;
    this.#loop = before.then(() => this.#run(signal));
    return this;
  }

  /** Ends the connection; idempotent. */
  async stop(): Promise<void> {
    this.#stop.abort();
    this.#socket?.destroy();
    await this.#loop;
  }

  /** Resolves with the agent's hello once it has answered. Rejects on quarantine, and on the signal with the reason of the trouble. */
  async ready(signal: AbortSignal): Promise<GuestHello> {
    return await this.#until(() => this.#greeted, signal);
  }

  /** Asks for a fresh state (counters read from the ranks) and resolves with it. Asks again after a reconnect. */
  async query(signal: AbortSignal): Promise<GuestState> {
    return await this.#ask(++this.#queryId, {}, signal);
  }

  /** As `query`, and asks each rank for its picture of its peers, which comes before the state. */
  async queryPeers(signal: AbortSignal): Promise<PeerPictures> {
    const id = ++this.#queryId;
    const pictures = new PeerPictures();
    const take = (part: GuestPeers) => {
      if (part.answer === id) pictures.take(part);
    };
    this.on("peers", take);
    try {
      await this.#ask(id, { peers: true }, signal);
      return pictures;
    } finally {
      this.off("peers", take);
    }
  }

  async #ask(id: number, options: { peers?: true }, signal: AbortSignal): Promise<GuestState> {
    const ask = () => this.#enqueue([encodeLine({ type: "query", session: this.#session, id, ...options })]);
    const again = () => ask();
    this.on("hello", again);
    try {
      if (this.#greeted !== undefined) ask();
      return await this.#until(() => (this.#state?.answer === id ? this.#state : undefined), signal);
    } finally {
      this.off("hello", again);
    }
  }

  /** Asks for the ranks' counters; a "sample" event with this id answers, if the connection lasts. False without a session. */
  askSample(id: number): boolean {
    if (this.#greeted === undefined) return false;
    this.#enqueue([encodeLine({ type: "sample", session: this.#session, id })]);
    return true;
  }

  /** Sends these now if there is a session; otherwise the level tells them at the next hello. */
  send(messages: Iterable<LevelMessage>): void {
    if (this.#greeted === undefined) return;
    this.#enqueue(this.#lines(messages));
  }

  /**
   * Tells all of the level once more, and has the agent tell all it knows, within the session: should a line have been
   * lost on any hop, nobody would ever know.
   */
  tellAgain(): void {
    // What is still on its way is not lost.
    if (this.#greeted === undefined || this.#queue.length > 0 || !this.#writable) return;
    this.#sayHello();
    this.#enqueue(this.#lines(this.#options.level()));
  }

  async #until<T>(look: () => T | undefined, signal: AbortSignal): Promise<T> {
    return await new Promise<T>((resolve, reject) => {
      const done = (finish: () => void) => {
        for (const name of ["hello", "state", "quarantined"] as const) this.off(name, check);
        signal.removeEventListener("abort", aborted);
        finish();
      };
      const check = () => {
        const value = look();
        if (value !== undefined) done(() => resolve(value));
        else if (this.#quarantine !== undefined) {
          const error = this.#quarantine;
          done(() => reject(error));
        }
      };
      const aborted = () =>
        done(() =>
          reject(
            new SymvirtError("unreachable", `the agent of ${this.vm} does not answer: ${this.trouble}`, {
              hint: `is \`symvirt agent\` running in ${this.vm}?`,
              cause: signal.reason,
            }),
          ),
        );
      for (const name of ["hello", "state", "quarantined"] as const) this.on(name, check);
      signal.addEventListener("abort", aborted, { once: true });
      if (signal.aborted) aborted();
      else check();
    });
  }

  async #run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted && this.#quarantine === undefined) {
      try {
        const socket = await this.#options.dial(signal);
        await this.#converse(socket, signal);
        this.#trouble("the channel was closed");
      } catch (error) {
        this.#trouble(error instanceof Error ? error.message : String(error));
      }
      if (signal.aborted || this.#quarantine !== undefined) break;
      await sleep(this.#options.redialMs, undefined, { signal }).catch(() => undefined);
    }
  }

  #trouble(text: string): void {
    this.#lastTrouble = plainText(text);
    const was = this.#greeted !== undefined;
    this.#greeted = undefined;
    this.#queue = [];
    if (was) this.emit("down", this.#lastTrouble);
  }

  async #converse(socket: Duplex, signal: AbortSignal): Promise<void> {
    this.#socket = socket;
    this.#writable = true;
    const decoder = new LineDecoder({ maxBytes: MAX_LINE_BYTES });
    const now = () => performance.now();
    const bytes = new TokenBucket(BYTES_PER_SECOND, BURST_BYTES, now());
    const messages = new TokenBucket(MESSAGES_PER_SECOND, 2 * MESSAGES_PER_SECOND, now());
    let resume: NodeJS.Timeout | undefined;
    this.#newSession();
    let saidAt = now();
    const pulse = setInterval(
      () => {
        const t = now();
        if (this.#greeted === undefined) {
          if (t - saidAt >= this.#options.helloEveryMs) {
            saidAt = t;
            this.#sayHello();
          }
        } else if (t - this.#heardAt > 2 * this.#patience * this.#options.silenceMs) {
          this.#patience = Math.min(2 * this.#patience, MAX_PATIENCE);
          this.#patienceAt = t;
          // An agent that was restarted does not know our session: begin one anew.
          this.#trouble("the agent stopped answering");
          this.#newSession();
          saidAt = t;
        } else if (t - this.#heardAt > this.#patience * this.#options.silenceMs) {
          this.#enqueue([encodeLine({ type: "query", session: this.#session, id: 0 })]);
        }
      },
      Math.min(this.#options.helloEveryMs, this.#options.silenceMs) / 2,
    );
    try {
      await new Promise<void>((resolve, reject) => {
        const onAbort = () => socket.destroy();
        signal.addEventListener("abort", onAbort, { once: true });
        socket.on("data", (chunk: Buffer) => {
          let others = 0;
          for (const line of decoder.push(chunk)) others += this.#take(line) === "post" ? 0 : 1;
          this.#oversize += decoder.dropped.oversize;
          this.#bad += decoder.dropped.malformed;
          decoder.dropped.oversize = 0;
          decoder.dropped.malformed = 0;
          if (this.#judge()) return socket.destroy();
          const pause = Math.max(bytes.take(chunk.length, now()), messages.take(others, now()));
          if (pause > 0) {
            socket.pause();
            resume = setTimeout(() => socket.resume(), pause);
          }
        });
        socket.on("drain", () => {
          this.#writable = true;
          this.#pump();
        });
        socket.once("error", reject);
        socket.once("end", () => socket.destroy());
        socket.once("close", () => {
          signal.removeEventListener("abort", onAbort);
          resolve();
        });
        if (signal.aborted) socket.destroy();
      });
    } finally {
      clearInterval(pulse);
      clearTimeout(resume);
      socket.destroy();
      this.#socket = undefined;
    }
  }

  #newSession(): void {
    this.#session = randomBytes(16).toString("hex");
    this.#greeted = undefined;
    this.#state = undefined;
    this.#queue = [];
    this.#lastTrouble = "no answer to hello";
    this.#sayHello();
  }

  #sayHello(): void {
    const line = encodeLine({ type: "hello", v: PROTOCOL_VERSION, session: this.#session });
    this.#enqueue([Buffer.concat([Buffer.of(RESET_BYTE), line])]);
  }

  #lines(messages: Iterable<LevelMessage>): Iterable<Buffer> {
    const session = this.#session;
    return (function* () {
      for (const message of messages) yield encodeLine({ ...message, session });
    })();
  }

  #enqueue(lines: Iterable<Buffer>): void {
    this.#queue.push(lines[Symbol.iterator]());
    this.#pump();
  }

  /** Writes until the guest does not drain any more; nothing is encoded before it can be written. */
  #pump(): void {
    while (this.#writable && this.#socket?.writable === true) {
      const [head] = this.#queue;
      if (head === undefined) return;
      const next = head.next();
      if (next.done === true) this.#queue.shift();
      else this.#writable = this.#socket.write(next.value);
    }
  }

  /** Takes one line; returns what it was. */
  #take(line: string): GuestMessage["type"] | "bad" | "stale" {
    let message: GuestMessage;
    try {
      message = guestMessage.parse(JSON.parse(line));
    } catch {
      // Counted, not logged: a guest must not be able to fill the host's log.
      this.#bad++;
      return "bad";
    }
    if (message.type === "hello" && message.session === ANNOUNCE_SESSION) {
      // The agent has just started and knows nothing of us.
      if (this.#greeted === undefined) this.#sayHello();
      else {
        this.#trouble("the agent was restarted");
        this.#newSession();
      }
      return "hello";
    }
    if (message.session !== this.#session) return "stale";
    this.#heardAt = performance.now();
    // A guest that was slow once is not so for ever.
    if (this.#patience > 1 && this.#heardAt - this.#patienceAt > CALM_MS) {
      this.#patience /= 2;
      this.#patienceAt = this.#heardAt;
    }
    if (message.type === "hello") {
      if (message.v !== PROTOCOL_VERSION) {
        this.#lastTrouble = `the agent speaks protocol ${message.v}, this is ${PROTOCOL_VERSION}`;
        return "hello";
      }
      if (this.#greeted === undefined) {
        this.#greeted = message;
        this.#enqueue(this.#lines(this.#options.level()));
        this.emit("hello", message);
      }
      return "hello";
    }
    // Before the hello nothing counts: the agent may still be in another session's stream.
    if (this.#greeted === undefined) return "stale";
    if (message.type === "state") {
      this.#state = message;
      this.emit("state", message);
    } else if (message.type === "peers") this.emit("peers", message);
    else if (message.type === "sample") this.emit("sample", message);
    else this.emit("post", message);
    return message.type;
  }

  /** Cuts off a guest that sends garbage. True if it was. */
  #judge(): boolean {
    if (this.#quarantine !== undefined) return true;
    if (this.#oversize < MAX_OVERSIZE && this.#bad < MAX_BAD_LINES) return false;
    this.#quarantine = new SymvirtError(
      "unreachable",
      `the channel of ${this.vm} is quarantined: ${this.#oversize} lines over ${MAX_LINE_BYTES} bytes and ${this.#bad} bad lines came from the guest`,
      { hint: `restart the agent in ${this.vm}; if it happens again, do not trust that guest` },
    );
    this.#greeted = undefined;
    this.emit("quarantined", this.#quarantine);
    return true;
  }
}
