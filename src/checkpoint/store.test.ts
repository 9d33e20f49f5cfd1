import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { chmodSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { capture, refusal, StoreWorld } from "../../test/support/checkpoint-world.js";
import { CheckpointStore, estimateBytes } from "./store.js";

let world: StoreWorld;
let store: CheckpointStore;
let path: string;
beforeEach(() => {
  world = new StoreWorld();
  ({ store, path } = world);
});
afterEach(() => world.close());

describe("a checkpoint", () => {
  it("exists from its commit on, with what was captured, for its owner alone", () => {
    const pending = world.begin("nightly");
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
    const pending = world.begin();
    capture(pending);
    pending.abandon();
    pending.abandon();
    expect(readdirSync(path)).toEqual([]);
    expect(() => pending.place("x")).toThrow("no longer being written");
  });

  it("is not committed without its parts", () => {
    const pending = world.begin();
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
    const pending = world.begin();
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
    const pending = world.begin();
    expect(() => pending.place(name)).toThrow("not a new part's name");
    pending.abandon();
  });

  it("may be one of two that are written at the same time under the same name", () => {
    const [first, second] = [world.begin("n"), world.begin("n")];
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
    expect(refusal(() => world.begin("a b")).message).toBe('"a b" cannot be a checkpoint\'s name');
    mkdirSync(path, { recursive: true });
    chmodSync(path, 0o777);
    expect(refusal(() => world.begin()).message).toContain("others may write");
    expect(refusal(() => world.store.hold("20260101T000000Z", "restart")).message).toContain(
      "others may write",
    );
    writeFileSync(join(world.folder, "file"), "");
    expect(refusal(() => world.storeOf("c", join(world.folder, "file")).room(1)).message).toContain(
      "cannot use",
    );
  });

  it.skipIf(process.getuid?.() !== 0)(
    "is not there when the disk was full (needs root, for a small tmpfs)",
    () => {
      mkdirSync(path);
      expect(
        spawnSync("mount", ["-t", "tmpfs", "-o", "size=64k,mode=700", "symvirt-test", path]).status,
      ).toBe(0);
      try {
        const before = world.made();
        const pending = world.begin();
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
        expect(refusal(() => store.hold(before.id, "restart")).message).toBe(
          `the checkpoint store ${path} is full (ENOSPC)`,
        );
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

describe("verify", () => {
  const signal = AbortSignal.timeout(10_000);

  it("reads every part, tells how far it is, and finds a changed byte", async () => {
    const { id } = world.made();
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
    const { id } = world.made();
    await expect(store.verify(id, { signal: AbortSignal.abort(new Error("enough")) })).rejects.toThrow(
      "enough",
    );
    store.remove(id);
  });
});

describe("the estimate", () => {
  it("is the memory, or half as much again as the last checkpoint of VMs of that memory took", () => {
    const last = world.made();
    expect(estimateBytes({ memoryBytes: 4000, diskBytes: 7 }, undefined)).toBe(4007);
    expect(estimateBytes({ memoryBytes: 4000, diskBytes: 7 }, last)).toBe(16);
    expect(estimateBytes({ memoryBytes: 5000 }, last)).toBe(5000);
  });
});
