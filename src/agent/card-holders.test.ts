import { chmodSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { findHolders } from "./card-holders.js";

let folder: string;
let places: { proc: string; sysfs: string; rdma: string };
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "symvirt-proc-"));
  places = { proc: join(folder, "proc"), sysfs: join(folder, "sys"), rdma: join(folder, "rdma") };
  mkdirSync(places.proc);
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

function addProcess(pid: number, command: string, targets: string[], maps = ""): void {
  const path = join(places.proc, String(pid));
  mkdirSync(join(path, "fd"), { recursive: true });
  writeFileSync(join(path, "comm"), `${command}\n`);
  writeFileSync(join(path, "maps"), maps);
  for (const [i, target] of targets.entries()) symlinkSync(target, join(path, "fd", String(i)));
}

function verbsDevice(): void {
  mkdirSync(join(places.sysfs, "class/infiniband/rxe0"), { recursive: true });
}

function rdma(body: string): void {
  writeFileSync(places.rdma, `#!/bin/sh\n${body}\n`);
  chmodSync(places.rdma, 0o755);
}

const IDLE = '[{"ifindex":0,"ifname":"rxe0","pd":1,"cq":1,"qp":1,"cm_id":0,"mr":0,"ctx":0,"srq":0}]';

describe("findHolders", () => {
  it("finds none among processes without the device, and takes the kernel's own objects for nobody's", async () => {
    addProcess(10, "sh", ["/dev/null", "socket:[1]"], "7f00-7f01 r-xp 0 0:0 0 /lib/libibverbs.so.1\n");
    verbsDevice();
    rdma(`echo '${IDLE}'`);
    expect(await findHolders(places)).toEqual([]);
  });

  it("names who has a descriptor, a mapping only, or a deleted device", async () => {
    addProcess(11, "a.out", ["/dev/null", "/dev/infiniband/uverbs0"]);
    addProcess(12, "mapper", [], "7f00-7f01 rw-s 00000000 00:05 9 /dev/infiniband/uverbs0\n");
    addProcess(13, "late", ["/dev/infiniband/rdma_cm (deleted)"]);
    expect(await findHolders(places)).toEqual([
      { pid: 11, command: "a.out", what: "open /dev/infiniband/uverbs0" },
      { pid: 12, command: "mapper", what: "mapped /dev/infiniband/uverbs0" },
      { pid: 13, command: "late", what: "open /dev/infiniband/rdma_cm (deleted)" },
    ]);
  });

  it("names whom the kernel counts although no descriptor shows", async () => {
    addProcess(10, "sh", []);
    verbsDevice();
    rdma(
      `case "$*" in *ctx) echo '[{"ifname":"rxe0","ctxn":2,"pid":77,"comm":"a.out"},{"ifname":"rxe1","ctxn":3,"pid":78}]';;` +
        ` *) echo '[{"ifname":"rxe0","mr":3,"ctx":1}]';; esac`,
    );
    expect(await findHolders(places)).toEqual([
      { pid: 77, command: "a.out", what: "kernel counts 1 contexts, 3 memory regions on rxe0" },
    ]);
  });

  it.each([
    ["fails", "echo no >&2; exit 1", /rdma resource failed: no/],
    ["talks nonsense", "echo '{['", /no JSON/],
  ])("counts the card as held when the rdma tool %s", async (_, body, what) => {
    verbsDevice();
    rdma(body);
    expect(await findHolders(places)).toEqual([
      expect.objectContaining({ what: expect.stringMatching(what) as unknown }),
    ]);
  });

  it("goes by descriptors alone where there is no rdma tool", async () => {
    verbsDevice();
    expect(await findHolders(places)).toEqual([]);
  });
});
