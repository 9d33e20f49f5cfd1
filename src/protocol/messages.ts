/**
 * The wire between a guest agent and the host, over virtio-serial: one JSON object a line.
 *
 * Level-triggered: the host says what it wants, the agent says what is so; either side repeats
 * everything after a reconnect, so no lost or repeated line can hurt. `session` is chosen at random
 * by the host at every connect (also after a migration, where the host end is a new socket); a line
 * of another session is dropped. Every schema is strict and every field is capped: neither end
 * trusts the other. docs/protocol.md explains each message.
 */
import { z } from "zod";

export const PROTOCOL_VERSION = 1;
/**
 * A longer line is dropped up to the next newline and counted against its sender. Room for the
 * largest honest line: a `state` of MAX_RANKS_PER_VM ranks with full counters and details.
 */
export const MAX_LINE_BYTES = 256 * 1024;
/** Bytes of a board post carried by one line (base64 makes it 4/3 as long). */
export const MAX_CHUNK_BYTES = 24 * 1024;
/** Bytes one rank may post under one key. */
export const MAX_POST_BYTES = 1 << 20;
export const MAX_WORLD = 4096;
export const MAX_RANKS_PER_VM = 128;
/** Peers told in one line: as many as one datagram of a rank holds. */
export const MAX_PEERS_PER_LINE = 682;

const text = (max: number) => z.string().max(max);
const u32 = z.number().int().min(0).max(0xffff_ffff);
/** Counters are JSON numbers: exact up to 2^53. */
const counter = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER);
export const sessionId = z.string().regex(/^[0-9a-f]{16,64}$/);
export const jobId = z.string().regex(/^[A-Za-z0-9._-]{1,63}$/);
export const boardKey = z.string().regex(/^[a-z0-9._-]{1,23}$/);
const rankNumber = z
  .number()
  .int()
  .min(0)
  .max(MAX_WORLD - 1);

export const rankPhase = z.enum(["run-openib", "run-tcp", "park", "hold"]);
export type RankPhase = z.infer<typeof rankPhase>;

export const rankStateName = z.enum([
  "init",
  "running",
  "draining",
  "closing",
  "parked",
  "opening",
  "failed",
  "inert",
  /** Stands still over tcp so that pre-copy can end; gives nothing up. */
  "held",
  /** The agent's own words: the connection ended without a BYE / with one. */
  "lost",
  "left",
]);
export type RankStateName = z.infer<typeof rankStateName>;

export const route = z.enum(["none", "openib", "tcp"]);
export type Route = z.infer<typeof route>;

export const traffic = z.strictObject({
  sentFragments: counter,
  receivedFragments: counter,
  sentBytes: counter,
  receivedBytes: counter,
});
export type Traffic = z.infer<typeof traffic>;

/** How long each part of the last cycle took in a rank, in microseconds (enum sv_wire_timing). */
export const rankTimings = z.strictObject({
  late: u32,
  drain: u32,
  teardown: u32,
  held: u32,
  load: u32,
  connect: u32,
});
export type RankTimings = z.infer<typeof rankTimings>;

export const rankReport = z.strictObject({
  rank: rankNumber,
  pid: u32,
  state: rankStateName,
  route,
  epoch: u32,
  /** The want this state is about. */
  cycle: u32,
  step: u32,
  /** Negative errno of a failed step, else 0. */
  error: z.number().int().min(-4096).max(0),
  detail: text(160),
  /** The rank proxies tcp only (no card to tear down). */
  tcpOnly: z.boolean(),
  openDescriptors: u32,
  registrations: u32,
  /** Live registrations that peers may use with atomics (MPI one-sided windows). */
  windows: u32,
  /**
   * The rank cannot tell its peers' traffic apart, so its job changes the routes of all ranks or none.
   * An agent that does not say so knows nothing of `moving` in a want: the same.
   */
  wholeOnly: z.boolean().default(true),
  timings: rankTimings,
  openib: traffic,
  tcp: traffic,
});
export type RankReport = z.infer<typeof rankReport>;

export const jobReport = z.strictObject({
  job: jobId,
  uid: u32,
  worldSize: z.number().int().min(1).max(MAX_WORLD),
  ranks: z.array(rankReport).max(MAX_RANKS_PER_VM),
});
export type JobReport = z.infer<typeof jobReport>;

/** A network card of the guest that has (or had) a verbs device, found by PCI address, never by name. */
export const deviceReport = z.strictObject({
  pci: text(32),
  driver: text(32),
  netdev: text(32),
  mac: text(64),
  /** Verbs name, empty while there is none (before the post-attach hook made it, say). */
  verbs: text(64),
  /** sysfs port state without its number: "ACTIVE", "DOWN", "INIT", "ARMED", or "" without a port. */
  port: text(16),
  /** First usable GID, empty while there is none. */
  gid: text(64),
});
export type DeviceReport = z.infer<typeof deviceReport>;

/** Who still holds the card: a rank, another process, or the kernel's own list. */
export const holderReport = z.strictObject({ pid: u32, command: text(64), what: text(96) });
export type HolderReport = z.infer<typeof holderReport>;

// ---- host to guest -------------------------------------------------------------------------

export const hostHello = z.strictObject({
  type: z.literal("hello"),
  v: z.number().int(),
  session: sessionId,
});

/** Ranks in ascending order, at least one. */
const rankList = z
  .array(rankNumber)
  .min(1)
  .max(MAX_WORLD)
  .refine((ranks) => ranks.every((r, i) => i === 0 || r > (ranks[i - 1] ?? r)), "not ascending");

/** What the host wants of a job's ranks. (cycle, step) only grows; an older pair is ignored. */
export const want = z.strictObject({
  type: z.literal("want"),
  session: sessionId,
  job: jobId,
  cycle: u32,
  step: u32,
  phase: rankPhase,
  /** The host has seen the complete "quiet" set of this cycle (SV_WANT_QUIET_COMPLETE). */
  quietComplete: z.boolean(),
  /**
   * Of "run-tcp" and "run-openib": these ranks change the routes to all their peers, the others of the job
   * only those to them. Absent: all ranks change all routes.
   */
  moving: rankList.optional(),
});
export type Want = z.infer<typeof want>;

/** One rank's part of a complete board set; `data` is base64 of at most MAX_CHUNK_BYTES. */
export const boardPart = z.strictObject({
  type: z.literal("board"),
  session: sessionId,
  job: jobId,
  cycle: u32,
  step: u32,
  key: boardKey,
  rank: rankNumber,
  offset: u32.max(MAX_POST_BYTES),
  total: u32.max(MAX_POST_BYTES),
  data: z
    .string()
    .max(Math.ceil(MAX_CHUNK_BYTES / 3) * 4)
    .regex(/^[A-Za-z0-9+/]*={0,2}$/),
});
export type BoardPart = z.infer<typeof boardPart>;

/** Asks for a fresh `state` with this id echoed (byte counters are read from the ranks then). */
export const query = z.strictObject({
  type: z.literal("query"),
  session: sessionId,
  id: u32,
  /** Each rank's picture of its peers is asked for too: `peers` lines come before the `state`. */
  peers: z.literal(true).optional(),
});

/**
 * Asks for the ranks' byte counters alone, answered by a `sample` with this id. It costs the guest little (no look at
 * cards and their holders), so a drawing of a cycle can ask several times a second.
 */
export const sampleRequest = z.strictObject({ type: z.literal("sample"), session: sessionId, id: u32 });

export const hostMessage = z.discriminatedUnion("type", [hostHello, want, boardPart, query, sampleRequest]);
export type HostMessage = z.infer<typeof hostMessage>;

// ---- guest to host -------------------------------------------------------------------------

/**
 * The session of an announcement: an agent that has just opened its port sends a `hello` with it
 * unasked, because a virtio port keeps the host connection open across an agent restart and the host
 * would not know otherwise. The host answers with a `hello` of a new random session. It is never a
 * session of its own: no other line carries it.
 */
export const ANNOUNCE_SESSION = "0000000000000000";

export const guestHello = z.strictObject({
  type: z.literal("hello"),
  v: z.number().int(),
  session: sessionId,
  agentVersion: text(32),
  hostname: text(64),
  kernel: text(64),
  bootId: text(64),
});
export type GuestHello = z.infer<typeof guestHello>;

/**
 * Everything that is so in this guest, in one line: sent on every change (coalesced to one line per
 * 20 ms) and in answer to `query`. `released` is the SymVirt wait: no rank, no other process and no
 * kernel object but the driver's own uses the card.
 */
export const guestState = z.strictObject({
  type: z.literal("state"),
  session: sessionId,
  /** Grows by one with each state of this session. */
  seq: u32,
  /** id of the query answered, 0 for an unasked state. */
  answer: u32,
  jobs: z.array(jobReport).max(16),
  devices: z.array(deviceReport).max(16),
  released: z.boolean(),
  holders: z.array(holderReport).max(16),
  /** Last failure of the post-attach hook, empty when none. */
  hookError: text(256),
});
export type GuestState = z.infer<typeof guestState>;

/** One chunk of a rank's post under a key. */
export const guestPost = z.strictObject({
  type: z.literal("post"),
  session: sessionId,
  job: jobId,
  cycle: u32,
  step: u32,
  key: boardKey,
  rank: rankNumber,
  offset: u32.max(MAX_POST_BYTES),
  total: u32.max(MAX_POST_BYTES),
  data: z
    .string()
    .max(Math.ceil(MAX_CHUNK_BYTES / 3) * 4)
    .regex(/^[A-Za-z0-9+/]*={0,2}$/),
});
export type GuestPost = z.infer<typeof guestPost>;

const peerTraffic = z.strictObject({ fragments: counter, bytes: counter });

/** One peer of a rank, as the rank sees it. */
export const peerReport = z.strictObject({
  rank: rankNumber,
  /** Where new traffic to it goes. */
  route,
  /** The peer's: which of its registration handles are current. */
  epoch: u32,
  /** Sent to it since the job's start; put and get are in the bytes. */
  openib: peerTraffic,
  tcp: peerTraffic,
});
export type PeerReport = z.infer<typeof peerReport>;

/** A part of one rank's picture of its peers, in answer to a `query` with `peers`. */
export const guestPeers = z.strictObject({
  type: z.literal("peers"),
  session: sessionId,
  answer: u32,
  job: jobId,
  rank: rankNumber,
  /** Number of the first entry here, and entries in all. */
  first: z.number().int().min(0).max(MAX_WORLD),
  total: z.number().int().min(0).max(MAX_WORLD),
  peers: z.array(peerReport).max(MAX_PEERS_PER_LINE),
});
export type GuestPeers = z.infer<typeof guestPeers>;

/** Counters of the ranks that told them for this request; a rank that did not within 300 ms is left out. */
export const guestSample = z.strictObject({
  type: z.literal("sample"),
  session: sessionId,
  /** id of the request. */
  answer: u32,
  ranks: z
    .array(z.strictObject({ job: jobId, rank: rankNumber, route, openib: traffic, tcp: traffic }))
    .max(MAX_RANKS_PER_VM),
});
export type GuestSample = z.infer<typeof guestSample>;

export const guestMessage = z.discriminatedUnion("type", [
  guestHello,
  guestState,
  guestPost,
  guestPeers,
  guestSample,
]);
export type GuestMessage = z.infer<typeof guestMessage>;
