import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { encodeLine } from "../protocol/framing.js";
import { MAX_LINE_BYTES, MAX_PEERS_PER_LINE } from "../protocol/messages.js";
import {
  decodeRankDatagram,
  encodeBoard,
  encodeQueryPeers,
  encodeReject,
  encodeWant,
  MAX_DATAGRAM,
  MAX_WORLD,
  WireError,
} from "./rank-wire.js";

/** The header itself is the reference: a C program fills the structs, we must read the same. */
const PROGRAM = `
#include <stdio.h>
#include <string.h>
#include <symvirt/rank_wire.h>
static void head(struct sv_msg_header *h, int type, size_t size) {
  h->magic = SV_WIRE_MAGIC; h->version = SV_WIRE_VERSION; h->type = type;
  h->cycle = 7; h->step = 8; h->length = size - sizeof *h;
}
int main(void) {
  struct sv_msg_hello hello = {0};
  head(&hello.h, SV_MSG_HELLO, sizeof hello);
  hello.rank = 3; hello.world_size = 5; hello.local_rank = 1; hello.pid = 1234; hello.epoch = 9;
  hello.flags = SV_HELLO_INERT | SV_HELLO_TCP_ONLY;
  strcpy(hello.job, "job-1"); strcpy(hello.library_version, "0.1"); strcpy(hello.openmpi_version, "4.1.4");
  strcpy(hello.reason, "why");
  fwrite(&hello, sizeof hello, 1, stdout);
  struct sv_msg_state state = {0};
  head(&state.h, SV_MSG_STATE, sizeof state);
  state.state = SV_RANK_FAILED; state.route = SV_ROUTE_TCP; state.epoch = 2; state.error = -16;
  state.timing_us[SV_TIMING_LATE] = 1; state.timing_us[SV_TIMING_CONNECT] = 6;
  state.openib.sent_fragments = 11; state.openib.received_bytes = 1ull << 40; state.tcp.sent_bytes = ~0ull;
  state.registrations = 21; state.open_descriptors = 22; state.windows = 23; state.whole_only = 2; strcpy(state.detail, "busy");
  fwrite(&state, sizeof state, 1, stdout);
  struct { struct sv_msg_board b; char bytes[4]; } post = {0};
  head(&post.b.h, SV_MSG_POST, sizeof post);
  strcpy(post.b.key, "modex"); post.b.rank = 3; post.b.offset = 6; post.b.total = 10; memcpy(post.bytes, "data", 4);
  fwrite(&post, sizeof post, 1, stdout);
  struct { struct sv_msg_peers m; struct sv_wire_peer peer[2]; } peers = {0};
  head(&peers.m.h, SV_MSG_PEERS, sizeof peers);
  peers.m.first = 3; peers.m.total = 5;
  peers.peer[0] = (struct sv_wire_peer){4, SV_ROUTE_TCP, 6, 0, 31, 32, 33, 34};
  peers.peer[1].rank = SV_WIRE_MAX_WORLD - 1; peers.peer[1].openib_bytes = ~0ull;
  fwrite(&peers, sizeof peers, 1, stdout);
  struct sv_msg_want want = {0};
  head(&want.h, SV_MSG_WANT, sizeof want);
  want.phase = SV_PHASE_RUN_TCP; want.flags = SV_WANT_QUIET_COMPLETE;
  const int moving[] = {0, 7, 8, 1234, SV_WIRE_MAX_WORLD - 1};
  for (int i = 0; i < 5; i++) want.moving[moving[i] / 8] |= 1u << (moving[i] % 8);
  fwrite(&want, sizeof want, 1, stdout);
  return 0;
}`;
const MOVING = [0, 7, 8, 1234, MAX_WORLD - 1];

function compiled(): Buffer {
  const folder = mkdtempSync(join(tmpdir(), "symvirt-wire-"));
  try {
    writeFileSync(join(folder, "wire.c"), PROGRAM);
    const include = fileURLToPath(new URL("../../native/include", import.meta.url));
    execFileSync("cc", ["-std=c11", "-I", include, "-o", join(folder, "wire"), join(folder, "wire.c")]);
    return execFileSync(join(folder, "wire"));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

it("reads the structs as the C header lays them out", () => {
  const bytes = compiled();
  let at = 0;
  const take = (size: number) => bytes.subarray(at, (at += size));
  const [hello, state, post, peers] = [take(304), take(320), take(68), take(128)];
  const want = take(544);
  expect(at).toBe(bytes.length);
  expect(decodeRankDatagram(hello)).toEqual({
    type: "hello",
    rank: 3,
    worldSize: 5,
    localRank: 1,
    pid: 1234,
    inert: true,
    tcpOnly: true,
    epoch: 9,
    job: "job-1",
    libraryVersion: "0.1",
    openmpiVersion: "4.1.4",
    reason: "why",
  });
  expect(decodeRankDatagram(state)).toEqual({
    type: "state",
    cycle: 7,
    step: 8,
    state: "failed",
    route: "tcp",
    epoch: 2,
    error: -16,
    timings: { late: 1, drain: 0, teardown: 0, held: 0, load: 0, connect: 6 },
    openib: { sentFragments: 11, receivedFragments: 0, sentBytes: 0, receivedBytes: 2 ** 40 },
    tcp: { sentFragments: 0, receivedFragments: 0, sentBytes: Number.MAX_SAFE_INTEGER, receivedBytes: 0 },
    registrations: 21,
    openDescriptors: 22,
    windows: 23,
    wholeOnly: true,
    detail: "busy",
  });
  const decoded = decodeRankDatagram(post);
  expect(decoded).toMatchObject({
    type: "post",
    cycle: 7,
    step: 8,
    key: "modex",
    rank: 3,
    offset: 6,
    total: 10,
  });
  expect(decoded.type === "post" && decoded.data.toString()).toBe("data");
  expect(decodeRankDatagram(peers)).toEqual({
    type: "peers",
    first: 3,
    total: 5,
    peers: [
      {
        ...{ rank: 4, route: "tcp", epoch: 6 },
        openib: { fragments: 31, bytes: 32 },
        tcp: { fragments: 33, bytes: 34 },
      },
      {
        ...{ rank: MAX_WORLD - 1, route: "none", epoch: 0 },
        openib: { fragments: 0, bytes: Number.MAX_SAFE_INTEGER },
        tcp: { fragments: 0, bytes: 0 },
      },
    ],
  });
  const ours = encodeWant({ cycle: 7, step: 8, phase: "run-tcp", quietComplete: true, moving: MOVING });
  expect(ours.equals(want)).toBe(true);
});

it("sets the bit of each moving rank and no other", () => {
  const ranks = fc.uniqueArray(fc.integer({ min: 0, max: MAX_WORLD - 1 }), { maxLength: 200 });
  fc.assert(
    fc.property(ranks, (moving) => {
      const want = encodeWant({ cycle: 1, step: 1, phase: "run-openib", quietComplete: false, moving });
      const bits = want.subarray(32);
      const found = Array.from({ length: MAX_WORLD }, (_, r) => r).filter(
        (r) => ((bits[r >> 3] ?? 0) & (1 << (r & 7))) !== 0,
      );
      expect(found).toEqual([...moving].sort((a, b) => a - b));
    }),
  );
});

describe("a rank's picture of its peers", () => {
  const datagram = (first: number, total: number, entries: { rank: number; route?: number }[], cut = 0) => {
    const b = Buffer.alloc(32 + 48 * entries.length - cut);
    encodeQueryPeers().copy(b);
    b.writeUInt16LE(6, 6);
    b.writeUInt32LE(b.length - 24, 16);
    b.writeUInt32LE(first, 24);
    b.writeUInt32LE(total, 28);
    for (const [i, { rank, route = 1 }] of entries.entries()) {
      if (32 + 48 * i + 8 > b.length) break;
      b.writeUInt32LE(rank, 32 + 48 * i);
      b.writeUInt32LE(route, 36 + 48 * i);
    }
    return b;
  };

  it("fits its lines: as many entries as a datagram holds", () => {
    const most = Math.floor((MAX_DATAGRAM - 32) / 48);
    expect(most).toBe(MAX_PEERS_PER_LINE);
    const full = datagram(
      0,
      most,
      Array.from({ length: most }, (_, rank) => ({ rank })),
    );
    const decoded = decodeRankDatagram(full);
    expect(decoded.type === "peers" && decoded.peers.length).toBe(most);
    const huge = { fragments: Number.MAX_SAFE_INTEGER, bytes: Number.MAX_SAFE_INTEGER };
    const line = encodeLine({
      ...{ type: "peers", session: "f".repeat(64), answer: 0xffff_ffff, job: "j".repeat(63), rank: 4095 },
      ...{ first: 4095, total: 4096 },
      peers: Array(most).fill({
        ...{ rank: 4095, route: "openib", epoch: 0xffff_ffff },
        ...{ openib: huge, tcp: huge },
      }),
    });
    expect(line.length).toBeLessThan(MAX_LINE_BYTES);
  });

  it.each([
    ["an entry cut off", datagram(0, 2, [{ rank: 0 }, { rank: 1 }], 1), /no whole number/],
    ["entries beyond the total", datagram(1, 2, [{ rank: 0 }, { rank: 1 }]), /outside/],
    ["a first that wraps", datagram(0xffff_ffff, 1, [{ rank: 0 }]), /outside/],
    ["a total beyond the world", datagram(0, 4097, [{ rank: 0 }]), /more than 4096/],
    ["no entry of some", datagram(0, 3, []), /without an entry/],
    ["a rank beyond the world", datagram(0, 1, [{ rank: 4096 }]), /out of range/],
    ["an unknown route", datagram(0, 1, [{ rank: 0, route: 3 }]), /unknown route/],
  ])("is refused with %s", (_, bytes, why) => {
    expect(() => decodeRankDatagram(bytes)).toThrow(why);
    expect(() => decodeRankDatagram(bytes)).toThrow(WireError);
  });

  it("may be empty, in a job of one rank", () => {
    expect(decodeRankDatagram(datagram(0, 0, []))).toEqual({ type: "peers", first: 0, total: 0, peers: [] });
  });
});

it("throws nothing but WireError, whatever comes", () => {
  const header = Buffer.from("5356 4d31 0100".replaceAll(" ", ""), "hex");
  fc.assert(
    fc.property(fc.nat({ max: 25 }), fc.uint8Array({ maxLength: 400 }), fc.boolean(), (type, body, fix) => {
      const datagram = Buffer.concat([header, Buffer.alloc(18), body]);
      datagram.writeUInt16LE(type, 6);
      if (fix) datagram.writeUInt32LE(body.length, 16);
      try {
        decodeRankDatagram(datagram);
      } catch (error) {
        expect(error).toBeInstanceOf(WireError);
      }
    }),
  );
});

it("encodes what the header asks for", () => {
  const want = encodeWant({ cycle: 1, step: 2, phase: "park", quietComplete: true });
  expect([want.length, want.readUInt16LE(6), want.readUInt32LE(24), want.readUInt32LE(28)]).toEqual([
    544, 17, 3, 1,
  ]);
  const board = encodeBoard({
    cycle: 1,
    step: 2,
    key: "k".repeat(23),
    rank: 4,
    offset: 5,
    total: 9,
    data: Buffer.from("abcd"),
  });
  expect([board.length, board.readUInt32LE(16), board[24 + 23]]).toEqual([68, 44, 0]);
  const reject = encodeReject("x".repeat(1000));
  expect([reject.length, reject.at(-1)]).toEqual([280, 0]);
});
