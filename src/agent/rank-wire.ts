/**
 * Datagrams between a rank and the agent: native/include/symvirt/rank_wire.h in TypeScript. Decoding
 * trusts nothing: a datagram that breaks any rule of the header throws a WireError. Host byte order is
 * little endian on every machine symvirt runs on (x86-64, aarch64).
 */
import type {
  PeerReport,
  RankPhase,
  RankStateName,
  RankTimings,
  Route,
  Traffic,
} from "../protocol/messages.js";

const MAGIC = 0x314d5653;
export const WIRE_VERSION = 1;
export const MAX_DATAGRAM = 32768;
export const MAX_POST = 1 << 20;
export const MAX_CHUNK = 24576;
export const MAX_WORLD = 4096;
const HEADER = 24;
const BOARD_FIXED = 40;
const KEY = 24;
const JOB = 64;

const Type = {
  hello: 1,
  state: 2,
  post: 3,
  bye: 4,
  log: 5,
  peers: 6,
  welcome: 16,
  want: 17,
  board: 18,
  query: 19,
  reject: 20,
  queryPeers: 21,
} as const;
const HELLO_BODY = 24 + JOB + 32 + 32 + 128;
const STATE_BODY = 16 + 32 + 64 + 24 + 160;
const WANT_BODY = 8 + MAX_WORLD / 8;
const PEERS_FIXED = 8;
const PEER = 48;
const LOG_BODY = 256;

const HelloFlag = { inert: 1, tcpOnly: 2 } as const;
const STATES = [
  "init",
  "running",
  "draining",
  "closing",
  "parked",
  "opening",
  "failed",
  "inert",
  "held",
] as const satisfies readonly RankStateName[];
const ROUTES = ["none", "openib", "tcp"] as const satisfies readonly Route[];
const LEVELS = ["error", "warn", "info", "debug"] as const;
const PHASES: Record<RankPhase, number> = { "run-openib": 1, "run-tcp": 2, park: 3, hold: 4 };

/** A datagram that breaks the protocol; the message names the rule. */
export class WireError extends Error {
  override readonly name = "WireError";
}

export interface RankHello {
  type: "hello";
  rank: number;
  worldSize: number;
  localRank: number;
  pid: number;
  inert: boolean;
  tcpOnly: boolean;
  epoch: number;
  job: string;
  libraryVersion: string;
  openmpiVersion: string;
  reason: string;
}

export interface RankState {
  type: "state";
  cycle: number;
  step: number;
  state: (typeof STATES)[number];
  route: Route;
  epoch: number;
  error: number;
  timings: RankTimings;
  openib: Traffic;
  tcp: Traffic;
  registrations: number;
  windows: number;
  wholeOnly: boolean;
  openDescriptors: number;
  detail: string;
}

export interface RankPost {
  type: "post";
  cycle: number;
  step: number;
  key: string;
  rank: number;
  offset: number;
  total: number;
  data: Buffer;
}

export interface RankLog {
  type: "log";
  level: (typeof LEVELS)[number];
  text: string;
}

/** A part of the rank's picture of its peers: entries `first` and on, of `total`. */
export interface RankPeers {
  type: "peers";
  first: number;
  total: number;
  peers: PeerReport[];
}

export type RankMessage = RankHello | RankState | RankPost | RankLog | RankPeers | { type: "bye" };

/** Decodes one datagram of a rank; throws WireError. */
export function decodeRankDatagram(datagram: Buffer): RankMessage {
  if (datagram.length < HEADER)
    throw new WireError(`datagram of ${datagram.length} bytes is shorter than a header`);
  if (datagram.length > MAX_DATAGRAM) throw new WireError(`datagram of ${datagram.length} bytes is too long`);
  const magic = datagram.readUInt32LE(0);
  if (magic !== MAGIC) throw new WireError(`bad magic 0x${magic.toString(16)}`);
  const version = datagram.readUInt16LE(4);
  if (version !== WIRE_VERSION) throw new WireError(`speaks version ${version}, this agent ${WIRE_VERSION}`);
  const length = datagram.readUInt32LE(16);
  const body = datagram.subarray(HEADER);
  if (length !== body.length) throw new WireError(`length field says ${length}, ${body.length} bytes came`);
  const cycle = datagram.readUInt32LE(8);
  const step = datagram.readUInt32LE(12);
  const type = datagram.readUInt16LE(6);
  switch (type) {
    case Type.hello:
      return decodeHello(body);
    case Type.state:
      return decodeState(body, cycle, step);
    case Type.post:
      return decodePost(body, cycle, step);
    case Type.bye:
      expectBody(body, 0, "bye");
      return { type: "bye" };
    case Type.log:
      return decodeLog(body);
    case Type.peers:
      return decodePeers(body);
    default:
      throw new WireError(`type ${type} is not for the agent`);
  }
}

function decodeHello(b: Buffer): RankHello {
  expectBody(b, HELLO_BODY, "hello");
  const rank = b.readUInt32LE(0);
  const worldSize = b.readUInt32LE(4);
  if (worldSize < 1 || worldSize > MAX_WORLD) throw new WireError(`world size ${worldSize} is out of range`);
  if (rank >= worldSize) throw new WireError(`rank ${rank} is not below world size ${worldSize}`);
  const job = fixedString(b, 24, JOB, "job");
  if (!/^[A-Za-z0-9._-]{1,63}$/.test(job))
    throw new WireError("job id is empty or has other characters than A-Z a-z 0-9 . _ -");
  const flags = b.readUInt32LE(16);
  return {
    type: "hello",
    rank,
    worldSize,
    localRank: b.readUInt32LE(8),
    pid: b.readUInt32LE(12),
    inert: (flags & HelloFlag.inert) !== 0,
    tcpOnly: (flags & HelloFlag.tcpOnly) !== 0,
    epoch: b.readUInt32LE(20),
    job,
    libraryVersion: printable(fixedString(b, 24 + JOB, 32, "library_version")),
    openmpiVersion: printable(fixedString(b, 56 + JOB, 32, "openmpi_version")),
    reason: printable(fixedString(b, 88 + JOB, 128, "reason")),
  };
}

function decodeState(b: Buffer, cycle: number, step: number): RankState {
  expectBody(b, STATE_BODY, "state");
  const state = STATES[b.readUInt32LE(0)];
  if (state === undefined) throw new WireError(`unknown rank state ${b.readUInt32LE(0)}`);
  const route = ROUTES[b.readUInt32LE(4)];
  if (route === undefined) throw new WireError(`unknown route ${b.readUInt32LE(4)}`);
  const error = b.readInt32LE(12);
  if (error > 0 || error < -4096) throw new WireError(`error ${error} is not a negative errno`);
  const us = (i: number) => b.readUInt32LE(16 + 4 * i);
  return {
    type: "state",
    cycle,
    step,
    state,
    route,
    epoch: b.readUInt32LE(8),
    error,
    timings: { late: us(0), drain: us(1), teardown: us(2), held: us(3), load: us(4), connect: us(5) },
    openib: decodeTraffic(b, 48),
    tcp: decodeTraffic(b, 80),
    registrations: b.readUInt32LE(112),
    openDescriptors: b.readUInt32LE(116),
    windows: b.readUInt32LE(124),
    wholeOnly: b.readUInt32LE(128) !== 0,
    detail: printable(fixedString(b, 136, 160, "detail")),
  };
}

function decodeTraffic(b: Buffer, at: number): Traffic {
  return {
    sentFragments: readCounter(b, at),
    receivedFragments: readCounter(b, at + 8),
    sentBytes: readCounter(b, at + 16),
    receivedBytes: readCounter(b, at + 24),
  };
}

/** A counter as a JSON number: those beyond 2^53 stop there. */
function readCounter(b: Buffer, at: number): number {
  const value = b.readBigUInt64LE(at);
  return value > BigInt(Number.MAX_SAFE_INTEGER) ? Number.MAX_SAFE_INTEGER : Number(value);
}

function decodePost(b: Buffer, cycle: number, step: number): RankPost {
  if (b.length < BOARD_FIXED) throw new WireError(`post of ${b.length} bytes is too short`);
  const key = fixedString(b, 0, KEY, "key");
  if (!/^[a-z0-9._-]{1,23}$/.test(key))
    throw new WireError("board key is empty or has other characters than a-z 0-9 . _ -");
  const data = b.subarray(BOARD_FIXED);
  const rank = b.readUInt32LE(KEY);
  const offset = b.readUInt32LE(KEY + 4);
  const total = b.readUInt32LE(KEY + 8);
  if (total > MAX_POST) throw new WireError(`post of ${total} bytes is larger than ${MAX_POST}`);
  if (data.length > MAX_CHUNK)
    throw new WireError(`chunk of ${data.length} bytes is larger than ${MAX_CHUNK}`);
  if (offset + data.length > total)
    throw new WireError(`chunk ${offset}+${data.length} is outside of its post of ${total}`);
  if (data.length === 0 && total !== 0) throw new WireError("empty chunk of a post that is not empty");
  return { type: "post", cycle, step, key, rank, offset, total, data };
}

function decodeLog(b: Buffer): RankLog {
  expectBody(b, LOG_BODY, "log");
  const level = LEVELS[b.readUInt32LE(0)];
  if (level === undefined) throw new WireError(`unknown log level ${b.readUInt32LE(0)}`);
  return { type: "log", level, text: printable(fixedString(b, 4, 252, "text")) };
}

function decodePeers(b: Buffer): RankPeers {
  const bytes = b.length - PEERS_FIXED;
  if (bytes < 0 || bytes % PEER !== 0) throw new WireError(`peers of ${b.length} bytes is no whole number`);
  const first = b.readUInt32LE(0);
  const total = b.readUInt32LE(4);
  const count = bytes / PEER;
  if (total > MAX_WORLD) throw new WireError(`${total} peers are more than ${MAX_WORLD}`);
  if (first + count > total) throw new WireError(`peers ${first}+${count} are outside of their ${total}`);
  if (count === 0 && total !== 0) throw new WireError("peers without an entry");
  const peers = Array.from({ length: count }, (_, i) => decodePeer(b, PEERS_FIXED + PEER * i));
  return { type: "peers", first, total, peers };
}

function decodePeer(b: Buffer, at: number): PeerReport {
  const rank = b.readUInt32LE(at);
  if (rank >= MAX_WORLD) throw new WireError(`peer ${rank} is out of range`);
  const route = ROUTES[b.readUInt32LE(at + 4)];
  if (route === undefined) throw new WireError(`unknown route ${b.readUInt32LE(at + 4)}`);
  return {
    rank,
    route,
    epoch: b.readUInt32LE(at + 8),
    openib: { fragments: readCounter(b, at + 16), bytes: readCounter(b, at + 24) },
    tcp: { fragments: readCounter(b, at + 32), bytes: readCounter(b, at + 40) },
  };
}

function expectBody(body: Buffer, bytes: number, name: string): void {
  if (body.length !== bytes)
    throw new WireError(`${name} has ${body.length} bytes after its header, not ${bytes}`);
}

function fixedString(b: Buffer, at: number, size: number, name: string): string {
  const field = b.subarray(at, at + size);
  const end = field.indexOf(0);
  if (end === -1) throw new WireError(`${name} is not NUL-terminated`);
  return field.toString("utf8", 0, end);
}

/** A rank's words are data: control characters must reach no terminal and no log. */
export function printable(text: string): string {
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]/g, "?");
}

// ---- agent to rank ---------------------------------------------------------------------------

function header(type: number, cycle: number, step: number, bodyBytes: number): Buffer {
  const b = Buffer.alloc(HEADER + bodyBytes);
  b.writeUInt32LE(MAGIC, 0);
  b.writeUInt16LE(WIRE_VERSION, 4);
  b.writeUInt16LE(type, 6);
  b.writeUInt32LE(cycle, 8);
  b.writeUInt32LE(step, 12);
  b.writeUInt32LE(bodyBytes, 16);
  return b;
}

export function encodeWelcome(): Buffer {
  return header(Type.welcome, 0, 0, 0);
}

export function encodeQuery(): Buffer {
  return header(Type.query, 0, 0, 0);
}

export function encodeQueryPeers(): Buffer {
  return header(Type.queryPeers, 0, 0, 0);
}

export function encodeWant(want: {
  cycle: number;
  step: number;
  phase: RankPhase;
  quietComplete: boolean;
  /** Absent: all ranks, which on this wire is a bitmap of zeros. */
  moving?: readonly number[] | undefined;
}): Buffer {
  const b = header(Type.want, want.cycle, want.step, WANT_BODY);
  b.writeUInt32LE(PHASES[want.phase], HEADER);
  b.writeUInt32LE(want.quietComplete ? 1 : 0, HEADER + 4);
  for (const rank of want.moving ?? []) {
    const at = HEADER + 8 + (rank >> 3);
    b.writeUInt8(b.readUInt8(at) | (1 << (rank & 7)), at);
  }
  return b;
}

export function encodeBoard(part: Omit<RankPost, "type">): Buffer {
  const b = header(Type.board, part.cycle, part.step, BOARD_FIXED + part.data.length);
  b.write(part.key, HEADER, KEY - 1, "latin1");
  b.writeUInt32LE(part.rank, HEADER + KEY);
  b.writeUInt32LE(part.offset, HEADER + KEY + 4);
  b.writeUInt32LE(part.total, HEADER + KEY + 8);
  part.data.copy(b, HEADER + BOARD_FIXED);
  return b;
}

export function encodeReject(text: string): Buffer {
  const b = header(Type.reject, 0, 0, LOG_BODY);
  b.write(text, HEADER + 4, 251, "utf8");
  return b;
}
