import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { bootId, machineName, startTimeOf } from "../controller/state/process-identity.js";
import { SymvirtError } from "../errors.js";
import { Holds } from "./holds.js";
import type { Captured, Manifest } from "./manifest.js";
import { writerOf } from "./part-write.js";
import { CheckpointStore, estimateBytes, type PendingCheckpoint } from "./store.js";

let folder: string;
let path: string;
let store: CheckpointStore;
const children: ChildProcess[] = [];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "symvirt-store-"));
  path = join(folder, "store");
  store = storeOf("c");
});
afterEach(async () => {
  for (const child of children.splice(0)) await end(child);
  rmSync(folder, { recursive: true, force: true });
});

function storeOf(name: string, at = path): CheckpointStore {
  return new CheckpointStore({ name, checkpoints: { path: at, level: 1 } });
}

const begin = (name?: string): PendingCheckpoint =>
  store.begin({ name, what: "checkpoint of vm1", neededBytes: 1 });

/** A capture of one VM whose memory is `bytes`, its file written as a host would have. */
function capture(pending: PendingCheckpoint, bytes = "memory"): Captured {
  const place = pending.place("vm1.ram.zst");
  writeFileSync(place.path, bytes);
  const part = {
    file: place.file,
    encoding: "zstd" as const,
    rawBytes: 1000,
    storedBytes: bytes.length,
    sha256: createHash("sha256").update(bytes).digest("hex"),
  };
  return {
    cycle: 3,
    cut: { method: "links-down", capture: "background-snapshot", withoutNetworkMs: 110 },
    vms: [
      {
        vm: "vm1",
        host: "h1",
        argv: ["qemu-system-x86_64"],
        qemu: "7.2.22",
        machine: "pc-q35-7.2",
        memoryBytes: 4000,
        cards: [
          { tag: "hca0", bus: "rp0", card: "c0", driver: "e1000e", identity: { mac: "52:54:00:00:00:01" } },
        ],
        pauseMs: 28.5,
        ram: part,
        disks: [
          {
            drive: "disk0",
            image: "/d.qcow2",
            format: "qcow2",
            kept: { kind: "internal-snapshot", snapshot: "s" },
          },
        ],
      },
    ],
    jobs: [{ job: "j", worldSize: 1, ranks: [{ rank: 0, vm: "vm1", epoch: 2 }] }],
  };
}

function made(name?: string): Manifest {
  const pending = begin(name);
  return pending.commit(capture(pending));
}

/** Changes a manifest on the disk, as another version, another cluster or a bad disk would have it. */
function spoil(id: string, change: (manifest: Record<string, unknown>) => void): void {
  const file = join(path, id, "manifest.json");
  const json = JSON.parse(readFileSync(file, "utf8")) as Record<string, unknown>;
  change(json);
  writeFileSync(file, JSON.stringify(json));
}

function process_(): ChildProcess & { pid: number } {
  const child = spawn("sleep", ["600"], { stdio: "ignore" });
  children.push(child);
  if (child.pid === undefined) throw new Error("sleep cannot be started");
  return child as ChildProcess & { pid: number };
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill("SIGKILL");
  await once(child, "exit");
}

/** Makes the hold(s) on a checkpoint those of another process, on this machine or another. */
function handHolds(id: string, other: { pid: number }, elsewhere = false): void {
  const holds = join(path, ".holds", id);
  for (const name of readdirSync(holds)) {
    const record = JSON.parse(readFileSync(join(holds, name), "utf8")) as object;
    writeFileSync(join(holds, name), JSON.stringify({ ...record, ...identityOf(other, elsewhere) }));
  }
}

function identityOf({ pid }: { pid: number }, elsewhere: boolean) {
  return elsewhere
    ? { pid, startTime: "1", bootId: "other", machine: "h9:ffff" }
    : { pid, startTime: startTimeOf(pid), bootId: bootId(), machine: machineName() };
}

function refusal(work: () => unknown): SymvirtError {
  try {
    work();
  } catch (error) {
    expect(error).toBeInstanceOf(SymvirtError);
    return error as SymvirtError;
  }
  throw new Error("it was taken");
}

describe("a checkpoint", () => {
  it("exists from its commit on, with what was captured, for its owner alone", () => {
    const pending = begin("nightly");
    expect(pending.id).toMatch(/^\d{8}T\d{6}Z-nightly$/);
    const captured = capture(pending);
    writeFileSync(join(pending.folder, "vm1.ram.zst.result"), "{}");
    pending.describe("cycle 3 (checkpoint of vm1)");
    expect(store.list()).toMatchObject([
      {
        id: pending.id,
        state: "writing",
        trouble: `cycle 3 (checkpoint of vm1) (pid ${process.pid}) writes it`,
      },
    ]);
    expect(refusal(() => store.read(pending.id))).toMatchObject({ exit: "refused" });
    const manifest = pending.commit(captured);
    expect(store.read(pending.id)).toEqual(manifest);
    expect(manifest).toMatchObject({
      ...captured,
      id: pending.id,
      cluster: "c",
      version: 1,
      symvirt: "0.1.0",
    });
    expect(store.list()).toMatchObject([{ state: "complete", trouble: "", users: [], manifest }]);
    expect(store.last()).toEqual(manifest);
    expect(readdirSync(pending.folder).sort()).toEqual(["manifest.json", "vm1.ram.zst"]);
    expect(statSync(pending.folder).mode & 0o777).toBe(0o700);
    for (const name of readdirSync(pending.folder))
      expect(statSync(join(pending.folder, name)).mode & 0o777).toBe(0o600);
    expect(readdirSync(path)).toEqual([pending.id]);
    pending.abandon();
    expect(store.read(pending.id)).toEqual(manifest);
  });

  it("that is abandoned leaves nothing", () => {
    const pending = begin();
    capture(pending);
    pending.abandon();
    pending.abandon();
    expect(readdirSync(path)).toEqual([]);
    expect(() => pending.place("x")).toThrow("no longer being written");
  });

  it("is not committed without its parts", () => {
    const pending = begin();
    const captured = capture(pending);
    writeFileSync(join(pending.folder, "vm1.ram.zst"), "memor");
    expect(refusal(() => pending.commit(captured))).toMatchObject({
      exit: "rolledBack",
      message: `checkpoint ${pending.id} is not complete: vm1.ram.zst has 5 bytes, and the manifest says 6`,
    });
    rmSync(join(pending.folder, "vm1.ram.zst"));
    expect(refusal(() => pending.commit(captured)).message).toContain("vm1.ram.zst is not there");
    pending.abandon();
  });

  it("seals a file that a VMM wrote by itself", async () => {
    const pending = begin();
    const { path: file } = pending.place("vm1.disk0.qcow2");
    writeFileSync(file, "disk", { mode: 0o644 });
    expect(await pending.seal("vm1.disk0.qcow2", AbortSignal.timeout(5000))).toEqual({
      file: "vm1.disk0.qcow2",
      encoding: "none",
      rawBytes: 4,
      storedBytes: 4,
      sha256: createHash("sha256").update("disk").digest("hex"),
    });
    expect(statSync(file).mode & 0o777).toBe(0o600);
    pending.abandon();
  });

  it.each(["../x", ".", "a/b", "manifest.json", ""])("takes no part %j", (name) => {
    const pending = begin();
    expect(() => pending.place(name)).toThrow("not a new part's name");
    pending.abandon();
  });

  it("may be one of two that are written at the same time under the same name", () => {
    const [first, second] = [begin("n"), begin("n")];
    expect(first.id).not.toBe(second.id);
    const captured = [capture(first, "first"), capture(second, "second")] as const;
    second.commit(captured[1]);
    expect(store.sweep()).toEqual([]);
    first.commit(captured[0]);
    expect(store.list().map((entry) => entry.state)).toEqual(["complete", "complete"]);
    expect(readFileSync(join(first.folder, "vm1.ram.zst"), "utf8")).toBe("first");
  });

  it("is refused before anything is touched when there is no room, with both figures", () => {
    const error = refusal(() => store.begin({ what: "x", neededBytes: 2 ** 60 }));
    expect(error).toMatchObject({ exit: "refused" });
    expect(error.message).toMatch(/has \d+ MiB free, and the checkpoint may take 1099511627776 MiB$/);
    expect(readdirSync(path)).toEqual([]);
  });

  it("needs a store, a proper name, and a folder that others may not write", () => {
    expect(refusal(() => new CheckpointStore({ name: "c" })).exit).toBe("usage");
    expect(refusal(() => begin("a b")).message).toBe('"a b" cannot be a checkpoint\'s name');
    mkdirSync(path, { recursive: true });
    chmodSync(path, 0o777);
    expect(refusal(() => begin()).message).toContain("others may write");
    writeFileSync(join(folder, "file"), "");
    expect(refusal(() => storeOf("c", join(folder, "file")).room(1)).message).toContain("cannot use");
  });

  it.skipIf(process.getuid?.() !== 0)(
    "is not there when the disk was full (needs root, for a small tmpfs)",
    () => {
      mkdirSync(path);
      expect(
        spawnSync("mount", ["-t", "tmpfs", "-o", "size=64k,mode=700", "symvirt-test", path]).status,
      ).toBe(0);
      try {
        const before = made();
        const pending = begin();
        const captured = capture(pending);
        expect(
          spawnSync("dd", ["if=/dev/zero", `of=${join(pending.folder, "vm1.ram.zst.writer")}`]).status,
        ).toBe(1);
        // The full file is no part and would make room, were it removed; so another one takes its place.
        writeFileSync(join(pending.folder, "vm1.ram.zst"), "");
        spawnSync("dd", ["if=/dev/zero", `of=${join(pending.folder, "vm1.ram.zst")}`]);
        const size = statSync(join(pending.folder, "vm1.ram.zst")).size;
        const ram = { ...captured.vms[0]!.ram, storedBytes: size };
        rmSync(join(pending.folder, "vm1.ram.zst.writer"));
        spawnSync("dd", ["if=/dev/zero", `of=${join(path, "filler")}`]);
        const error = refusal(() => pending.commit({ ...captured, vms: [{ ...captured.vms[0]!, ram }] }));
        expect(error.message).toBe(
          `checkpoint ${pending.id} is not complete: its manifest cannot be written (ENOSPC)`,
        );
        expect(error.hint).toContain("the store is full");
        expect(store.list().map((entry) => entry.state)).toEqual(["complete", "writing"]);
        // Removing is what makes room, so it must not need any.
        store.remove(before.id);
        pending.abandon();
        expect(readdirSync(path)).toEqual(["filler"]);
      } finally {
        expect(spawnSync("umount", ["-l", path]).status).toBe(0);
      }
    },
  );
});

describe("what cannot be restarted is refused precisely", () => {
  it("an unknown one, and what is no id", () => {
    for (const id of ["20260101T000000Z", "../../etc", "", "\u001b[2J"])
      expect(refusal(() => store.read(id))).toMatchObject({ exit: "usage" });
    expect(refusal(() => store.read("\u001b[2J")).message).toBe(`there is no checkpoint "?[2J" in ${path}`);
    expect(store.list()).toEqual([]);
  });

  it("one of another cluster", () => {
    const { id } = made();
    const other = storeOf("other");
    const message = `checkpoint ${id} cannot be used here: it is of cluster "c", and this is "other"`;
    for (const work of [() => other.read(id), () => other.hold(id, "x"), () => other.remove(id)])
      expect(refusal(work)).toMatchObject({ exit: "refused", message });
    expect(other.list()).toMatchObject([{ state: "foreign" }]);
    expect(other.prune(1)).toEqual({ removed: [], kept: [], refused: [] });
    expect(store.read(id).id).toBe(id);
  });

  it("one of a newer symvirt", () => {
    const { id } = made();
    spoil(id, (m) => Object.assign(m, { version: 2, symvirt: "3.0.0", more: true }));
    expect(refusal(() => store.read(id))).toMatchObject({
      exit: "refused",
      message: `checkpoint ${id} cannot be read: symvirt 3.0.0 wrote it with schema version 2, and this one knows versions up to 1`,
    });
    expect(store.list()).toMatchObject([{ state: "newer" }]);
  });

  it.each<[string, (id: string) => void, string]>([
    ["a part of another length", (id) => writeFileSync(join(path, id, "vm1.ram.zst"), "x"), "has 1 bytes"],
    ["a part that is gone", (id) => rmSync(join(path, id, "vm1.ram.zst")), "vm1.ram.zst is not there"],
    ["a manifest that is no JSON", (id) => writeFileSync(join(path, id, "manifest.json"), "{"), "not JSON"],
    [
      "a manifest of something else",
      (id) => writeFileSync(join(path, id, "manifest.json"), "{}"),
      "not that of a",
    ],
    [
      "an unknown key",
      (id) => spoil(id, (m) => Object.assign(m, { x: 1 })),
      "its manifest is wrong at the top",
    ],
    [
      "a part outside its folder",
      (id) => spoil(id, (m) => Object.assign((m as unknown as Manifest).vms[0]!.ram, { file: "../x" })),
      "its manifest is wrong at vms.0.ram.file: a file name without folders",
    ],
    [
      "another one's manifest",
      (id) => spoil(id, (m) => Object.assign(m, { id: "20260101T000000Z" })),
      "its manifest is that of 20260101T000000Z",
    ],
  ])("%s", (_, damage, text) => {
    const { id } = made();
    damage(id);
    const error = refusal(() => store.read(id));
    expect(error.exit).toBe("refused");
    expect(error.message).toContain(`checkpoint ${id} is damaged: `);
    expect(error.message).toContain(text);
    expect(store.list()).toMatchObject([{ state: "damaged" }]);
    expect(store.prune(1).removed).toEqual([]);
    store.remove(id);
    expect(store.list()).toEqual([]);
  });
});

describe("verify", () => {
  const signal = AbortSignal.timeout(10_000);

  it("reads every part, tells how far it is, and finds a changed byte", async () => {
    const { id } = made();
    const seen: number[][] = [];
    const options = { signal, onProgress: (...of: number[]) => void seen.push(of) };
    expect(await store.verify(id, options)).toEqual({
      id,
      ok: true,
      parts: [{ file: "vm1.ram.zst", ok: true, trouble: "" }],
    });
    expect(seen).toEqual([[6, 6]]);
    writeFileSync(join(path, id, "vm1.ram.zst"), "memorx");
    expect(store.read(id).id).toBe(id);
    expect(await store.verify(id, { signal })).toMatchObject({
      ok: false,
      parts: [{ ok: false, trouble: "vm1.ram.zst has another SHA-256 than the manifest says" }],
    });
    rmSync(join(path, id, "vm1.ram.zst"));
    expect(await store.verify(id, { signal })).toMatchObject({
      parts: [{ trouble: "vm1.ram.zst is not there" }],
    });
    expect(store.list()[0]?.users).toEqual([]);
  });

  it("stops when told to, and lets go", async () => {
    const { id } = made();
    await expect(store.verify(id, { signal: AbortSignal.abort(new Error("enough")) })).rejects.toThrow(
      "enough",
    );
    store.remove(id);
  });
});

describe("holds", () => {
  it("two may read, nobody removes meanwhile", () => {
    const { id } = made();
    const [first, second] = [store.hold(id, "restart"), store.hold(id, "restart")];
    expect(first).toMatchObject({ id, folder: join(path, id), manifest: { id } });
    first.release();
    first.release();
    expect(refusal(() => store.remove(id))).toMatchObject({
      exit: "refused",
      message: `checkpoint ${id} is in use: restart (pid ${process.pid})`,
    });
    second.release();
    store.remove(id);
    expect(readdirSync(path)).toEqual([]);
  });

  it("prune leaves what is being read and says so", () => {
    const ids = [made("a"), made("b"), made("c"), made("d")].map((manifest) => manifest.id).sort();
    const hold = store.hold(ids[0]!, "restart");
    expect(store.prune(2)).toEqual({
      removed: [ids[1]],
      kept: [ids[2], ids[3]],
      refused: [{ id: ids[0], why: `checkpoint ${ids[0]} is in use: restart (pid ${process.pid})` }],
    });
    hold.release();
    expect(store.prune(2)).toMatchObject({ removed: [ids[0]] });
    expect(store.prune(2)).toMatchObject({ removed: [] });
    expect(() => store.prune(0)).toThrow();
  });

  it("a reader that was killed holds nothing", async () => {
    const { id } = made();
    const reader = process_();
    store.hold(id, "restart");
    handHolds(id, reader);
    expect(refusal(() => store.remove(id)).message).toContain(`restart (pid ${reader.pid})`);
    await end(reader);
    store.remove(id);
  });

  it("of another machine counts, and the hint names the file to remove", () => {
    const { id } = made();
    store.hold(id, "restart");
    handHolds(id, { pid: 5 }, true);
    const error = refusal(() => store.remove(id));
    expect(error.message).toBe(`checkpoint ${id} is in use: restart (pid 5 on h9)`);
    const file = /remove (\/.*\.json)$/.exec(error.hint ?? "")?.[1];
    rmSync(file ?? "");
    store.remove(id);
  });

  it("a base stays when its process has ended, until it is released or overruled", () => {
    const [a, b] = [made("a").id, made("b").id];
    for (const id of [a, b]) {
      store.addBase(id, { name: "cycle-12", what: "vm1 runs on its disks since cycle 12" });
      handHolds(id, { pid: 5 }, true);
    }
    expect(store.list().map((entry) => entry.users)).toEqual(
      Array(2).fill(["vm1 runs on its disks since cycle 12"]),
    );
    const message = `checkpoint ${a} is in use: vm1 runs on its disks since cycle 12`;
    expect(refusal(() => store.remove(a))).toMatchObject({ exit: "refused", message });
    expect(store.prune(1).refused).toHaveLength(1);
    const hold = store.hold(a, "restart");
    expect(refusal(() => store.remove(a, { evenIfBase: true })).message).toContain("in use: restart");
    hold.release();
    store.remove(a, { evenIfBase: true });
    store.releaseBase(b, "cycle-12");
    store.releaseBase(b, "cycle-12");
    store.remove(b);
    expect(readdirSync(path)).toEqual([]);
  });

  it("one that cannot be read protects the checkpoint until it is overruled", () => {
    const { id } = made();
    mkdirSync(join(path, ".holds", id), { recursive: true });
    const file = join(path, ".holds", id, "base-x.json");
    writeFileSync(file, "{");
    expect(refusal(() => store.remove(id)).message).toContain(`a hold that cannot be read (${file})`);
    store.hold(id, "restart").release();
    store.remove(id, { evenIfBase: true });
    expect(readdirSync(path)).toEqual([]);
  });

  it("does not let a checkpoint be used that is being removed", () => {
    const { id } = made();
    const removal = new Holds(path, id).take("remove", "remove");
    expect(refusal(() => store.hold(id, "restart")).message).toContain("in use: remove");
    expect(refusal(() => store.addBase(id, { name: "n", what: "w" })).message).toContain("in use: remove");
    if ("release" in removal) removal.release();
  });
});

describe("sweep", () => {
  it("removes what a killed writer left, and nothing of a living one", async () => {
    const writer = process_();
    const whole = made("whole");
    const pending = begin("partial");
    capture(pending);
    handHolds(pending.id, writer);
    expect(store.sweep()).toEqual([]);
    expect(refusal(() => store.remove(pending.id)).message).toContain(
      `checkpoint of vm1 (pid ${writer.pid})`,
    );
    await end(writer);
    expect(store.entry(pending.id)).toMatchObject({
      state: "partial",
      trouble: "its writer ended before it was complete",
    });
    expect(store.sweep()).toEqual([pending.id]);
    expect(readdirSync(path)).toEqual([whole.id]);
  });

  it("waits for a host that still writes a part", async () => {
    const [controller, host] = [process_(), process_()];
    const pending = begin();
    capture(pending);
    handHolds(pending.id, controller);
    await end(controller);
    const part = join(pending.folder, "vm1.ram.zst");
    writeFileSync(writerOf(part), JSON.stringify(identityOf(host, false)));
    expect(store.sweep()).toEqual([]);
    await end(host);
    expect(store.sweep()).toEqual([pending.id]);
  });

  it("takes a part that another machine writes for written until it has not grown for a minute", async () => {
    const controller = process_();
    const pending = begin();
    capture(pending);
    handHolds(pending.id, controller);
    await end(controller);
    const part = join(pending.folder, "vm1.ram.zst");
    writeFileSync(writerOf(part), JSON.stringify(identityOf({ pid: 5 }, true)));
    expect(store.sweep()).toEqual([]);
    const before = Date.now() / 1000 - 61;
    utimesSync(part, before, before);
    expect(store.sweep()).toEqual([pending.id]);
  });

  it("leaves a writer of another machine alone", () => {
    const pending = begin();
    handHolds(pending.id, { pid: 5 }, true);
    expect(store.sweep()).toEqual([]);
    expect(store.entry(pending.id).trouble).toBe("checkpoint of vm1 (pid 5 on h9) writes it");
    expect(existsSync(pending.folder)).toBe(true);
  });
});

describe("the estimate", () => {
  it("is the memory, or half as much again as the last checkpoint of VMs of that memory took", () => {
    const last = made();
    expect(estimateBytes({ memoryBytes: 4000, diskBytes: 7 }, undefined)).toBe(4007);
    expect(estimateBytes({ memoryBytes: 4000, diskBytes: 7 }, last)).toBe(16);
    expect(estimateBytes({ memoryBytes: 5000 }, last)).toBe(5000);
  });
});
