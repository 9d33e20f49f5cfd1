/**
 * Server-sent events. Journal records carry their line number as id, so a client that comes back with Last-Event-ID
 * misses none, also after a restart of the server. All other events (operation, policy) tell a present state and have
 * no id; of each kind a slow client gets the newest only. A client costs a bounded buffer, whatever it reads.
 */
import { watch } from "node:fs";
import type { ServerResponse } from "node:http";
import { basename, dirname } from "node:path";
import { JournalCursor } from "./journal-cursor.js";

const BATCH = 64;
/** Bytes under way to a client before it is given no more. */
const HIGH_WATER = 256 * 1024;
/** A client that takes nothing for so long is let go. */
const STALLED_MS = 30_000;
const KEEP_ALIVE_MS = 15_000;
/** In case the file system does not tell of a change. */
const LOOK_MS = 1_000;
export const MAX_CLIENTS = 64;

class Client {
  readonly #response: ServerResponse;
  readonly #cursor: JournalCursor;
  readonly #pending = new Map<string, string>();
  #stalled: NodeJS.Timeout | undefined;

  constructor(response: ServerResponse, journal: string, after: number | undefined) {
    this.#response = response;
    this.#cursor = new JournalCursor(journal);
    const reached = this.#cursor.skip(after ?? Number.MAX_SAFE_INTEGER);
    // It knows more records than there are: another journal than the one it read.
    if (!reached && after !== undefined) {
      this.#cursor = new JournalCursor(journal);
      this.#write("event: reset\ndata: {}\n\n");
    }
    response.on("drain", () => {
      clearTimeout(this.#stalled);
      this.#stalled = undefined;
      this.pump();
    });
  }

  get at(): number {
    return this.#cursor.number;
  }

  tell(event: string, data: object): void {
    this.#pending.set(event, `event: ${event}\ndata: ${JSON.stringify(data)}\n\n`);
    this.pump();
  }

  keepAlive(): void {
    if (this.#stalled === undefined) this.#write(":\n\n");
  }

  /** Sends what there is, as long as the client takes it. */
  pump(): void {
    while (this.#stalled === undefined && !this.#response.destroyed) {
      const lines = this.#cursor.read(BATCH);
      if (lines === "moved") this.#write("event: reset\ndata: {}\n\n");
      else if (lines.length > 0)
        this.#write(lines.map((l) => `event: journal\nid: ${l.number}\ndata: ${l.text}\n\n`).join(""));
      else break;
    }
    for (const [event, text] of this.#pending) {
      if (this.#stalled !== undefined) return;
      this.#pending.delete(event);
      this.#write(text);
    }
  }

  end(): void {
    clearTimeout(this.#stalled);
    this.#response.end();
  }

  #write(text: string): void {
    this.#response.write(text);
    if (this.#response.writableLength < HIGH_WATER) return;
    this.#stalled ??= setTimeout(() => this.#response.destroy(), STALLED_MS);
  }
}

export class EventStreams {
  readonly #journal: string;
  readonly #clients = new Set<Client>();
  readonly #timers: NodeJS.Timeout[];
  readonly #watcher: ReturnType<typeof watch>;

  /** The folder of the journal must be there. */
  constructor(journal: string) {
    this.#journal = journal;
    const pump = () => {
      for (const client of this.#clients) client.pump();
    };
    this.#watcher = watch(dirname(journal), (_, name) => {
      if (name === null || name === basename(journal)) pump();
    });
    this.#watcher.on("error", () => undefined);
    this.#timers = [
      setInterval(pump, LOOK_MS),
      setInterval(() => {
        for (const client of this.#clients) client.keepAlive();
      }, KEEP_ALIVE_MS),
    ];
  }

  get clients(): number {
    return this.#clients.size;
  }

  /** Serves one client; the caller has looked at `clients`. `now`: the present state, told first. */
  open(response: ServerResponse, after: number | undefined, now: ReadonlyMap<string, object>): void {
    response.writeHead(200, {
      "content-type": "text/event-stream",
      "cache-control": "no-store",
      "x-accel-buffering": "no",
    });
    response.write("retry: 1000\n\n");
    const client = new Client(response, this.#journal, after);
    this.#clients.add(client);
    response.once("close", () => {
      this.#clients.delete(client);
      client.end();
    });
    client.tell("hello", { schemaVersion: 1, journal: client.at });
    for (const [event, data] of now) client.tell(event, data);
  }

  publish(event: string, data: object): void {
    for (const client of this.#clients) client.tell(event, data);
  }

  close(): void {
    for (const timer of this.#timers) clearInterval(timer);
    this.#watcher.close();
    for (const client of this.#clients) client.end();
  }
}
