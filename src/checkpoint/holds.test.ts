import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { capture, refusal, StoreWorld } from "../../test/support/checkpoint-world.js";
import { bootId, machineName, startTimeOf } from "../controller/state/process-identity.js";
import { Holds } from "./holds.js";
import { writerOf } from "./part-write.js";
import type { CheckpointStore } from "./store.js";

let world: StoreWorld;
let store: CheckpointStore;
let path: string;
beforeEach(() => {
  world = new StoreWorld();
  ({ store, path } = world);
});
const children: ChildProcess[] = [];
afterEach(async () => {
  for (const child of children.splice(0)) await end(child);
  world.close();
});

/** Some process of this machine, ended by the test or after it. */
function aProcess(): ChildProcess & { pid: number } {
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

describe("holds", () => {
  it("two may read, nobody removes meanwhile", () => {
    const { id } = world.made();
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
    const ids = [world.made("a"), world.made("b"), world.made("c"), world.made("d")]
      .map((manifest) => manifest.id)
      .sort();
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
    const { id } = world.made();
    const reader = aProcess();
    store.hold(id, "restart");
    handHolds(id, reader);
    expect(refusal(() => store.remove(id)).message).toContain(`restart (pid ${reader.pid})`);
    await end(reader);
    store.remove(id);
  });

  it("of another machine counts, and the hint names the file to remove", () => {
    const { id } = world.made();
    store.hold(id, "restart");
    handHolds(id, { pid: 5 }, true);
    const error = refusal(() => store.remove(id));
    expect(error.message).toBe(`checkpoint ${id} is in use: restart (pid 5 on h9)`);
    const file = /remove (\/.*\.json)$/.exec(error.hint ?? "")?.[1];
    rmSync(file ?? "");
    store.remove(id);
  });

  it("a base stays when its process has ended, until it is released or overruled", async () => {
    const restart = aProcess();
    const [a, b] = [world.made("a").id, world.made("b").id];
    for (const id of [a, b]) {
      store.addBase(id, { name: "cycle-12", what: "vm1 runs on its disks since cycle 12" });
      handHolds(id, restart);
    }
    await end(restart);
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
    const { id } = world.made();
    mkdirSync(join(path, ".holds", id), { recursive: true });
    const file = join(path, ".holds", id, "base-x.json");
    writeFileSync(file, "{");
    expect(refusal(() => store.remove(id)).message).toContain(`a hold that cannot be read (${file})`);
    store.hold(id, "restart").release();
    store.remove(id, { evenIfBase: true });
    expect(readdirSync(path)).toEqual([]);
  });

  it("does not let a checkpoint be used that is being removed", () => {
    const { id } = world.made();
    const removal = new Holds(path, id).take("remove", "remove");
    expect(refusal(() => store.hold(id, "restart")).message).toContain("in use: remove");
    expect(refusal(() => store.addBase(id, { name: "n", what: "w" })).message).toContain("in use: remove");
    if ("release" in removal) removal.release();
  });
});

describe("sweep", () => {
  it("removes what a killed writer left, and nothing of a living one", async () => {
    const writer = aProcess();
    const whole = world.made("whole");
    const pending = world.begin("partial");
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
    const [controller, host] = [aProcess(), aProcess()];
    const pending = world.begin();
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
    const controller = aProcess();
    const pending = world.begin();
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
    const pending = world.begin();
    handHolds(pending.id, { pid: 5 }, true);
    expect(store.sweep()).toEqual([]);
    expect(store.entry(pending.id).trouble).toBe("checkpoint of vm1 (pid 5 on h9) writes it");
    expect(existsSync(pending.folder)).toBe(true);
  });
});
