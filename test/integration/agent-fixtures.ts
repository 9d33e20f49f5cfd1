/** Far ends for the agent's tests: ranks over the addon's client socket, and a scripted host. */
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pino } from "pino";
import { type Descriptor, errorCode, loadAddon } from "../../src/agent/addon.js";
import { Agent, type AgentOptions } from "../../src/agent/agent.js";
import { encodeLine, LineDecoder } from "../../src/protocol/framing.js";
import {
  type GuestMessage,
  type GuestState,
  guestMessage,
  type HostMessage,
} from "../../src/protocol/messages.js";

export const MAGIC = 0x314d5653;
export const STATE = {
  init: 0,
  running: 1,
  draining: 2,
  closing: 3,
  parked: 4,
  opening: 5,
  failed: 6,
  inert: 7,
};
export const ROUTE = { none: 0, openib: 1, tcp: 2 };

/** Waits until `probe` gives something; fails with `what` after `ms`. */
export async function until<T>(what: string, probe: () => T | undefined | false, ms = 5000): Promise<T> {
  const end = performance.now() + ms;
  for (;;) {
    const value = probe();
    if (value !== undefined && value !== false) return value;
    if (performance.now() > end) throw new Error(`Waited ${ms} ms in vain for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

export function datagram(type: number, body: Buffer, { cycle = 0, step = 0, version = 1 } = {}): Buffer {
  const h = Buffer.alloc(24);
  h.writeUInt32LE(MAGIC, 0);
  h.writeUInt16LE(version, 4);
  h.writeUInt16LE(type, 6);
  h.writeUInt32LE(cycle, 8);
  h.writeUInt32LE(step, 12);
  h.writeUInt32LE(body.length, 16);
  return Buffer.concat([h, body]);
}

export interface HelloFields {
  job?: string;
  rank?: number;
  worldSize?: number;
  pid?: number;
  flags?: number;
  reason?: string;
}

export function helloDatagram(fields: HelloFields = {}): Buffer {
  const b = Buffer.alloc(280);
  b.writeUInt32LE(fields.rank ?? 0, 0);
  b.writeUInt32LE(fields.worldSize ?? 2, 4);
  b.writeUInt32LE(fields.pid ?? process.pid, 12);
  b.writeUInt32LE(fields.flags ?? 0, 16);
  b.write(fields.job ?? "job1", 24);
  b.write("0.1.0", 88);
  b.write("4.1.4", 120);
  b.write(fields.reason ?? "", 152);
  return datagram(1, b);
}

export interface StateFields {
  state?: number;
  route?: number;
  epoch?: number;
  cycle?: number;
  step?: number;
  sentBytes?: number;
  openDescriptors?: number;
  wholeOnly?: boolean;
  detail?: string;
}

export function stateDatagram(f: StateFields = {}): Buffer {
  const b = Buffer.alloc(296);
  b.writeUInt32LE(f.state ?? STATE.running, 0);
  b.writeUInt32LE(f.route ?? ROUTE.openib, 4);
  b.writeUInt32LE(f.epoch ?? 1, 8);
  b.writeBigUInt64LE(BigInt(f.sentBytes ?? 0), 48 + 16);
  b.writeUInt32LE(f.openDescriptors ?? 0, 116);
  b.writeUInt32LE(f.wholeOnly === true ? 1 : 0, 128);
  b.write(f.detail ?? "", 136);
  return datagram(2, b, { cycle: f.cycle ?? 0, step: f.step ?? 0 });
}

export function postDatagram(f: {
  key: string;
  rank: number;
  data: Buffer;
  cycle?: number;
  step?: number;
  offset?: number;
  total?: number;
}): Buffer {
  const b = Buffer.alloc(40);
  b.write(f.key, 0);
  b.writeUInt32LE(f.rank, 24);
  b.writeUInt32LE(f.offset ?? 0, 28);
  b.writeUInt32LE(f.total ?? f.data.length, 32);
  return datagram(3, Buffer.concat([b, f.data]), { cycle: f.cycle ?? 1, step: f.step ?? 1 });
}

/** A part of a rank's picture of its peers: these ranks, all over openib with this many bytes. */
export function peersDatagram(first: number, total: number, ranks: readonly number[], bytes = 7): Buffer {
  const b = Buffer.alloc(8 + 48 * ranks.length);
  b.writeUInt32LE(first, 0);
  b.writeUInt32LE(total, 4);
  for (const [i, rank] of ranks.entries()) {
    b.writeUInt32LE(rank, 8 + 48 * i);
    b.writeUInt32LE(ROUTE.openib, 12 + 48 * i);
    b.writeBigUInt64LE(BigInt(bytes), 8 + 48 * i + 24);
  }
  return datagram(6, b);
}

export const BYE = datagram(4, Buffer.alloc(0));

export interface Received {
  type: number;
  cycle: number;
  step: number;
  body: Buffer;
}

/** A rank as the agent sees one, without MPI. */
export class FakeRank {
  readonly received: Received[] = [];
  closed = false;
  /** With `answerQueries`, QUERY is answered by this. */
  current: Buffer | undefined;
  /** QUERY_PEERS is answered by these, if by any. */
  peers: Buffer[] = [];
  readonly #descriptor: Descriptor;

  constructor(socket: string) {
    this.#descriptor = loadAddon().connect(socket);
    this.#descriptor.watch(true, false, () => this.#read());
  }

  /** Connects and registers. */
  static async join(socket: string, fields: HelloFields = {}): Promise<FakeRank> {
    const rank = new FakeRank(socket);
    rank.send(helloDatagram(fields));
    await until("the welcome", () => rank.received.some((m) => m.type === 16));
    return rank;
  }

  send(bytes: Buffer): void {
    if (!this.#descriptor.send(bytes)) throw new Error("EAGAIN");
  }

  /** For floods: false when the agent does not read. */
  trySend(bytes: Buffer): boolean {
    return this.#descriptor.send(bytes);
  }

  say(state: StateFields): void {
    this.current = stateDatagram(state);
    this.send(this.current);
  }

  of(type: number): Received[] {
    return this.received.filter((m) => m.type === type);
  }

  /** The text of the rejection; waits for it. */
  async rejection(): Promise<string> {
    const message = await until("a reject", () => this.of(20)[0]);
    await until("the end of the connection", () => this.closed);
    return message.body.toString("utf8", 4, message.body.indexOf(0, 4));
  }

  close(): void {
    this.closed = true;
    this.#descriptor.close();
  }

  #read(): void {
    for (;;) {
      let bytes: Buffer | null;
      try {
        bytes = this.#descriptor.receive();
      } catch (error) {
        if (errorCode(error) === "ECONNRESET") continue;
        throw error;
      }
      if (bytes === null) return;
      if (bytes.length === 0) {
        this.close();
        return;
      }
      const type = bytes.readUInt16LE(6);
      this.received.push({
        type,
        cycle: bytes.readUInt32LE(8),
        step: bytes.readUInt32LE(12),
        body: Buffer.from(bytes.subarray(24)),
      });
      if (type === 19 && this.current !== undefined) this.send(this.current);
      if (type === 21) for (const part of this.peers) this.send(part);
    }
  }
}

/** The host end: a listening socket, as many connections one after the other as the agent makes. */
export class FakeHost {
  readonly lines: GuestMessage[] = [];
  connections = 0;
  #socket: Socket | undefined;
  readonly #server: Server;

  private constructor(server: Server) {
    this.#server = server;
  }

  static async listen(path: string): Promise<FakeHost> {
    const server = createServer();
    const host = new FakeHost(server);
    server.on("connection", (socket) => host.#use(socket));
    await new Promise<void>((resolve) => server.listen(path, resolve));
    return host;
  }

  #use(socket: Socket): void {
    this.#socket = socket;
    this.connections++;
    const decoder = new LineDecoder();
    socket.on("error", () => undefined);
    socket.on("data", (chunk) => {
      // Strict parsing: whatever the agent says must be by the contract.
      for (const line of decoder.push(chunk)) this.lines.push(guestMessage.parse(JSON.parse(line)));
      if (decoder.dropped.oversize + decoder.dropped.malformed > 0)
        throw new Error("the agent sent a bad line");
    });
  }

  send(message: HostMessage): void {
    this.sendRaw(encodeLine(message));
  }

  sendRaw(bytes: Buffer): void {
    if (this.#socket === undefined) throw new Error("the agent is not connected");
    this.#socket.write(bytes);
  }

  get socket(): Socket {
    if (this.#socket === undefined) throw new Error("the agent is not connected");
    return this.#socket;
  }

  /** Opens a session and waits for the agent's hello and state. */
  async hello(session: string): Promise<GuestState> {
    await until("the agent's announcement", () => this.lines.some((l) => l.type === "hello"));
    this.send({ type: "hello", v: 1, session });
    await until("the agent's hello", () =>
      this.lines.some((l) => l.type === "hello" && l.session === session),
    );
    return this.state((s) => s.session === session);
  }

  /** Waits for a state that fits. */
  state(fits: (state: GuestState) => boolean, ms?: number): Promise<GuestState> {
    return until(
      "a state that fits",
      () => this.lines.find((l): l is GuestState => l.type === "state" && fits(l)),
      ms,
    );
  }

  /** Forgets what came so far. */
  clear(): void {
    this.lines.length = 0;
  }

  disconnect(): void {
    this.#socket?.destroy();
    this.#socket = undefined;
  }

  async close(): Promise<void> {
    this.disconnect();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }
}

/** One agent with its temporary folder; `close` removes all of it. */
export class AgentBench {
  readonly folder = mkdtempSync(join(tmpdir(), "symvirt-agent-"));
  readonly socket = join(this.folder, "run/ranks.sock");
  readonly hostPath = join(this.folder, "host.sock");
  readonly failures: unknown[] = [];
  agent: Agent | undefined;
  #hosts: FakeHost[] = [];
  #ranks: FakeRank[] = [];

  start(options: Partial<AgentOptions> = {}): Agent {
    this.agent = new Agent({
      port: `unix:${this.hostPath}`,
      socket: this.socket,
      hooks: join(this.folder, "hooks.d"),
      sysfs: join(this.folder, "sys"),
      log: pino({ level: process.env.AGENT_TEST_LOG ?? "silent" }),
      failed: (error) => this.failures.push(error),
      ...options,
    });
    return this.agent;
  }

  async host(): Promise<FakeHost> {
    const host = await FakeHost.listen(this.hostPath);
    this.#hosts.push(host);
    return host;
  }

  async join(fields: HelloFields = {}): Promise<FakeRank> {
    const rank = await FakeRank.join(this.socket, fields);
    this.#ranks.push(rank);
    return rank;
  }

  connect(): FakeRank {
    const rank = new FakeRank(this.socket);
    this.#ranks.push(rank);
    return rank;
  }

  async close(): Promise<void> {
    for (const rank of this.#ranks) rank.close();
    this.agent?.close();
    for (const host of this.#hosts) await host.close();
    rmSync(this.folder, { recursive: true, force: true });
  }
}
