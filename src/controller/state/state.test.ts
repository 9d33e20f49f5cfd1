import { spawn } from "node:child_process";
import { once } from "node:events";
import {
  appendFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { parseCluster } from "../cluster-file.js";
import { askControl, ControllerGone, serveControl } from "./control-socket.js";
import { type CycleTarget, Journal } from "./journal.js";
import { acquireLock, lockHolders } from "./lock.js";
import { Placement } from "./placement.js";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "symvirt-state-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const target: CycleTarget = {
  cycle: 7,
  vm: "vm1",
  from: "h1",
  to: "h2",
  cards: [],
  jobs: [],
  strategy: "live" as const,
  leave: true,
  comeBack: true,
};

describe("lock", () => {
  it("is held by one, who is named", async () => {
    const lock = await acquireLock(folder, { what: "migrate vm1 to h3", acting: true, waitMs: 0 });
    lock.describe("cycle 12 (migrate vm1 to h3)");
    await expect(acquireLock(folder, { what: "x", acting: true, waitMs: 5000 })).rejects.toMatchObject({
      exit: "refused",
      message: `cycle 12 (migrate vm1 to h3) (pid ${process.pid}) is running`,
    });
    lock.release();
    lock.release();
    (await acquireLock(folder, { what: "x", acting: true, waitMs: 0 })).release();
  });

  it("is never held by two of many that ask at once", async () => {
    let held = 0;
    let most = 0;
    const one = async () => {
      const lock = await acquireLock(folder, { what: "x", acting: false, waitMs: 10_000 });
      most = Math.max(most, ++held);
      await new Promise((resolve) => setTimeout(resolve, 3));
      held--;
      lock.release();
    };
    await Promise.all(Array.from({ length: 8 }, one));
    expect(most).toBe(1);
  });

  it("waits for a reader", async () => {
    const reader = await acquireLock(folder, { what: "status", acting: false, waitMs: 0 });
    setTimeout(() => reader.release(), 100);
    (await acquireLock(folder, { what: "migrate", acting: true, waitMs: 5000 })).release();
  });

  it("of a dead process, of a reused pid and of another boot is nobody's", async () => {
    const child = spawn("true");
    await once(child, "exit");
    mkdirSync(join(folder, "lock"), { recursive: true });
    const bootId = readFileSync("/proc/sys/kernel/random/boot_id", "latin1").trim();
    const stale = [
      { pid: child.pid, startTime: "1", bootId, what: "x", acting: true },
      { pid: process.pid, startTime: "1", bootId, what: "x", acting: true },
      { pid: 1, startTime: "1", bootId: "other", what: "x", acting: true },
    ];
    for (const [i, holder] of stale.entries())
      writeFileSync(join(folder, "lock", `${i}.json`), JSON.stringify(holder));
    writeFileSync(join(folder, "lock", "broken.json"), "{");
    expect(lockHolders(folder)).toEqual([]);
    (await acquireLock(folder, { what: "x", acting: true, waitMs: 0 })).release();
    expect(readdirSync(join(folder, "lock"))).toEqual([]);
  });
});

describe("journal", () => {
  it("finds the cycle that did not end, and nothing once it has", () => {
    const journal = new Journal(folder);
    expect(journal.interrupted()).toBeUndefined();
    journal.append({ kind: "begin", pid: 1, verb: "migrate", target });
    journal.append({ kind: "phase", cycle: 7, event: "ok", phase: "drain", step: 1, effects: [] });
    journal.append({ kind: "quiet", cycle: 7, step: 1, job: "j" });
    expect(journal.interrupted()).toMatchObject({ phase: "drain", step: 1, quietJobs: ["j"], target });
    expect(journal.lastCycle()).toBe(7);
    journal.append({ kind: "end", cycle: 7, outcome: "needs-operator", message: "do it", unfinished: true });
    expect(journal.interrupted()?.message).toBe("do it");
    journal.append({ kind: "end", cycle: 7, outcome: "rolled-back", message: "done", unfinished: false });
    expect(journal.interrupted()).toBeUndefined();
    expect(statSync(journal.path).mode & 0o777).toBe(0o600);
  });

  it("leaves out a line that a crash left half-written, and goes on after it", () => {
    const journal = new Journal(folder);
    journal.append({ kind: "begin", pid: 1, verb: "migrate", target });
    appendFileSync(journal.path, '{"kind":"phase","cyc');
    expect(journal.read()).toHaveLength(1);
    journal.repair();
    journal.append({ kind: "phase", cycle: 7, event: "ok", phase: "drain", step: 1, effects: [] });
    expect(journal.read()).toHaveLength(2);
  });

  it("goes on in a new file when it is long, with its last cycle, and keeps the old one", () => {
    const journal = new Journal(folder);
    const cycle = (number: number) => {
      journal.append({ kind: "begin", pid: 1, verb: "migrate", target: { ...target, cycle: number } });
      journal.append({ kind: "phase", cycle: number, event: "ok", phase: "drain", step: 1, effects: [] });
    };
    const end = (number: number) =>
      journal.append({ kind: "end", cycle: number, outcome: "done", message: "", unfinished: false });
    for (const number of [1, 2]) {
      cycle(number);
      end(number);
    }
    cycle(3);
    journal.rotate(100);
    expect(journal.read()).toHaveLength(8);
    end(3);
    journal.rotate(1_000_000);
    expect(journal.read()).toHaveLength(9);
    journal.rotate(100);
    expect([journal.read().length, journal.lastCycle(), journal.interrupted()]).toEqual([3, 3, undefined]);
    expect(readFileSync(`${journal.path}.1`, "utf8").trim().split("\n")).toHaveLength(9);
    cycle(4);
    end(4);
    journal.rotate(100);
    expect(journal.read()).toHaveLength(3);
    expect(readFileSync(`${journal.path}.1`, "utf8").trim().split("\n")).toHaveLength(6);
    expect(statSync(journal.path).mode & 0o777).toBe(0o600);
    journal.rotate(100);
    expect(journal.read()).toHaveLength(3);
  });

  it("says where it is damaged", () => {
    const journal = new Journal(folder);
    writeFileSync(journal.path, "{}\n");
    expect(() => journal.read()).toThrow("journal.jsonl:1");
  });
});

describe("placement", () => {
  const cluster = () =>
    parseCluster(
      `{version: 1, name: c, state: "${folder}", hosts: {h1: {address: a, runtime: /r, cards: {c0: {driver: d}}}, h2: {address: b, runtime: /r}},
        vms: {vm1: {host: h1, command: [q, -pidfile, '{runtime}/{vm}.pid'], cards: {hca0: {bus: rp0, card: c0}}}}}`,
      "c.yaml",
    );

  it("begins with the cluster file and keeps what is written", () => {
    const placement = new Placement(cluster());
    expect(placement.of("vm1")).toEqual({ host: "h1", cards: { hca0: "c0" } });
    placement.write("vm1", { host: "h2", cards: {} });
    expect(new Placement(cluster()).of("vm1")).toEqual({ host: "h2", cards: {} });
    placement.write("vm1", { host: "gone", cards: {} });
    expect(placement.of("vm1").host).toBe("h1");
    expect(readdirSync(folder)).toEqual(["placement.json"]);
  });

  it("says when it is damaged", () => {
    writeFileSync(join(folder, "placement.json"), "[]");
    expect(() => new Placement(cluster()).read()).toThrow("is damaged");
  });
});

describe("control socket", () => {
  it("answers, is ours alone, and is gone after close", async () => {
    const socket = await serveControl(folder, async ({ ask }) => ({ asked: ask }));
    expect(statSync(join(folder, "control.sock")).mode & 0o777).toBe(0o600);
    const signal = AbortSignal.timeout(2000);
    expect(await askControl(folder, { ask: "status" }, signal)).toEqual({ asked: "status" });
    await socket.close();
    expect(await askControl(folder, { ask: "status" }, signal)).toBeUndefined();
  });

  it("cuts off who sends too much, and refuses what it does not know", async () => {
    const socket = await serveControl(folder, async () => ({}));
    const rude = connect(join(folder, "control.sock"));
    rude.on("error", () => undefined);
    rude.write("x".repeat(100_000));
    await new Promise((resolve) => rude.once("close", resolve));
    const odd = connect(join(folder, "control.sock"));
    odd.write('{"ask":"format"}\n');
    const [answer] = (await once(odd, "data")) as [Buffer];
    expect(JSON.parse(answer.toString())).toEqual({ error: "unknown request" });
    await socket.close();
  });

  it("a controller that ends while it is asked is said to be gone, one that is silent not to answer", async () => {
    const path = join(folder, "control.sock");
    for (const end of [(s: Socket) => s.destroy(), (s: Socket) => s.once("data", () => s.destroy())]) {
      const ending = createServer(end);
      await new Promise<void>((resolve) => ending.listen(path, resolve));
      const asked = askControl(folder, { ask: "status" }, AbortSignal.timeout(2000));
      await expect(asked).rejects.toBeInstanceOf(ControllerGone);
      await new Promise((resolve) => ending.close(resolve));
    }
    const silent = createServer((s) => s.on("error", () => undefined).resume());
    await new Promise<void>((resolve) => silent.listen(path, resolve));
    await expect(askControl(folder, { ask: "status" }, AbortSignal.timeout(50))).rejects.toMatchObject({
      exit: "unreachable",
      message: "the running controller does not answer on its control socket",
    });
    await expect(askControl(folder, { ask: "status" }, AbortSignal.abort())).rejects.toMatchObject({
      exit: "unreachable",
    });
    await new Promise((resolve) => silent.close(resolve));
  });

  it("a socket left by a dead controller is in nobody's way", async () => {
    writeFileSync(join(folder, "control.sock"), "");
    const socket = await serveControl(folder, async () => ({ ok: true }));
    expect(await askControl(folder, { ask: "status" }, AbortSignal.timeout(2000))).toEqual({ ok: true });
    await socket.close();
  });
});
