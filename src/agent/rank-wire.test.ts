import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { expect, it } from "vitest";
import { decodeRankDatagram, encodeBoard, encodeReject, encodeWant, WireError } from "./rank-wire.js";

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
  state.registrations = 21; state.open_descriptors = 22; state.windows = 23; strcpy(state.detail, "busy");
  fwrite(&state, sizeof state, 1, stdout);
  struct { struct sv_msg_board b; char bytes[4]; } post = {0};
  head(&post.b.h, SV_MSG_POST, sizeof post);
  strcpy(post.b.key, "modex"); post.b.rank = 3; post.b.offset = 6; post.b.total = 10; memcpy(post.bytes, "data", 4);
  fwrite(&post, sizeof post, 1, stdout);
  return 0;
}`;

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
  const [hello, state, post] = [bytes.subarray(0, 304), bytes.subarray(304, 616), bytes.subarray(616)];
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
    32, 17, 3, 1,
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
