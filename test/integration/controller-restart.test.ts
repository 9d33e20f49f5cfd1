/** `restart` over fake VMs and a real store: again and again, elsewhere, refused, failing, and its controller killed. */
import { linkSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, expect, it } from "vitest";
import { CheckpointStore } from "../../src/checkpoint/store.js";
import { openStateFolder } from "../../src/controller/session.js";
import { Journal } from "../../src/controller/state/journal.js";
import type { Strategy } from "../../src/controller/strategy.js";
import { SymvirtError } from "../../src/errors.js";
import { calm, controllerOf, expectWell, world } from "../support/controller-world.js";
import type { FakeCluster, FakeOp } from "../support/fake-cluster.js";

/** A world with a checkpoint whose VMs have gone on since, and then died. */
async function afterDeath(options: Parameters<typeof world>[0] = {}) {
  const w = world({ deadlines: calm, ...options });
  const controller = await controllerOf(w, 30_000);
  const { checkpoint: id } = await controller.checkpoint({ strategy: options.strategy ?? "park" });
  for (const vm of w.guests.keys()) writeFileSync(w.diskOf(vm), `later disk of ${vm}`);
  for (const guest of w.guests.values())
    for (const rank of guest.ranks) rank.report = { ...rank.report, epoch: 40, pid: 9999 };
  w.killAll();
  w.calls.length = 0;
  return { w, controller, id };
}

function expectRestarted(w: FakeCluster, hosts: [string, string]): void {
  expectWell(w, "vm1", hosts[0]);
  expectWell(w, "vm2", hosts[1]);
  for (const process of w.processes.values()) expect(process.linksUp).toBe(true);
  for (const [vm, guest] of w.guests) {
    expect(readFileSync(w.diskOf(vm), "utf8")).toBe(`first disk of ${vm}`);
    for (const { report } of guest.ranks) expect([report.pid, report.epoch]).toEqual([1000 + report.rank, 2]);
  }
}

const expectNothingRuns = (w: FakeCluster): void => {
  expect([...w.processes.keys()]).toEqual([]);
  for (const vm of w.guests.keys()) expect(readFileSync(w.diskOf(vm), "utf8")).toBe(`later disk of ${vm}`);
};

const rejection = (promise: Promise<unknown>): Promise<SymvirtError> =>
  promise.then(
    () => new SymvirtError("internal", "it was restarted"),
    (error: unknown) => error as SymvirtError,
  );

const strategies: Strategy[] = ["park", "live"];
describe.each(strategies)("a restart of a checkpoint taken %s", (strategy) => {
  it("starts all VMs paused, resumes all, and only then joins the wires; twice from the same checkpoint", async () => {
    const { w, controller, id } = await afterDeath({ strategy });
    for (let time = 1; time <= 2; time++) {
      const report = await controller.restart({ id });
      expect(report).toMatchObject({ outcome: "done", verb: "restart", checkpoint: id });
      expectRestarted(w, ["h1", "h2"]);
      const of = (text: string) => w.calls.flatMap((call, i) => (call.startsWith(text) ? [i] : []));
      expect(Math.max(...of("restore"))).toBeLessThan(Math.min(...of("resume")));
      expect(Math.max(...of("resume"))).toBeLessThan(Math.min(...of("links up")));
      for (const vm of w.guests.keys()) writeFileSync(w.diskOf(vm), `later disk of ${vm}`);
      w.killAll();
      w.calls.length = 0;
    }
  });

  it("goes to other hosts, with their cards, and is noted", async () => {
    const { w, controller, id } = await afterDeath({ strategy });
    const report = await controller.restart({ id, on: { vm1: "h3" } });
    expect(report.vms.map(({ vm, host }) => `${vm}@${host}`)).toEqual(["vm1@h3", "vm2@h2"]);
    expectRestarted(w, ["h3", "h2"]);
    expect((await controller.status()).vms.map((v) => [v.host, v.cards])).toEqual([
      ["h3", ["hca0"]],
      ["h2", ["hca0"]],
    ]);
    expect((await controller.migrate({ vm: "vm1", to: "h1" })).outcome).toBe("done");
  });
});

describe("a restart", () => {
  it("on a host that is off is undone from another, once abort is told so", async () => {
    const { w, controller, id } = await afterDeath();
    const { target } = await controller.planRestart({ id });
    if (target === undefined) throw new Error("refused");
    openStateFolder(w.cluster.state);
    const journal = new Journal(w.cluster.state);
    journal.append({ kind: "begin", pid: 1, verb: "restart", target });
    const { cycle } = target;
    journal.append({ kind: "phase", cycle, event: "begin", phase: "load", step: 0, effects: [] });
    w.fault = (op, where) => {
      if (op === "end" && where.endsWith("@h2"))
        throw new SymvirtError("unreachable", "host h2 does not run a command (status 255)");
    };
    expect(await controller.abort()).toMatchObject({ outcome: "needs-operator" });
    expect(await controller.abort({ gone: ["h2"] })).toMatchObject({ outcome: "rolled-back" });
    expectNothingRuns(w);
    w.fault = () => undefined;
    expect((await controller.restart({ id })).outcome).toBe("done");
  });

  it("goes round a host that is gone, once the operator vouches for it", async () => {
    const { w, controller, id } = await afterDeath();
    w.fault = (op, where) => {
      if (where.endsWith("@h1") && op === "findProcesses")
        throw new SymvirtError("unreachable", "host h1 does not run a command (status 255): no route");
    };
    const error = await rejection(controller.restart({ id }));
    expect(error.exit).toBe("refused");
    expect(error.message).toContain("host h1 does not run a command");
    expect(`${error.message} ${error.hint}`).toContain("--gone h1");
    expectNothingRuns(w);
    await controller.restart({ id, gone: ["h1"] });
    expectRestarted(w, ["h3", "h2"]);
  });

  it("is refused while a VM still runs, with its pid and host", async () => {
    const { w, controller, id } = await afterDeath();
    w.processes.set("vm2@h3", { status: "paused", cards: new Map(), moved: false, channel: undefined });
    const error = await rejection(controller.restart({ id }));
    expect(error).toMatchObject({
      exit: "refused",
      message: expect.stringContaining("vm2 still runs on h3 (pid 4711)"),
    });
    expect(w.calls).toEqual([]);
  });

  it("is refused without a free card", async () => {
    const { w, controller, id } = await afterDeath();
    for (const host of ["h2", "h3"]) w.cluster.hosts[host] = { ...host2(w, host), cards: {} };
    const error = await rejection(controller.restart({ id }));
    expect(error).toMatchObject({
      exit: "refused",
      message: expect.stringContaining("free card (e1000e) for vm2"),
    });
    const asked = await rejection(controller.restart({ id, on: { vm1: "h3" } }));
    expect(asked.message).toContain("h3 has no free card (e1000e) for vm1");
  });

  it("is refused when a VM's command has changed, naming the word", async () => {
    const { w, controller, id } = await afterDeath();
    w.cluster.vms.vm1?.command.push("-snapshot");
    const error = await rejection(controller.restart({ id }));
    expect(error).toMatchObject({ exit: "refused", message: expect.stringContaining('"-snapshot"') });
  });

  it("is refused for a checkpoint that is unknown, damaged, foreign or newer, before anything is started", async () => {
    const { w, controller, id } = await afterDeath();
    const manifest = join(w.cluster.checkpoints?.path ?? "", id, "manifest.json");
    const part = join(w.cluster.checkpoints?.path ?? "", id, "vm1.ram.zst");
    expect(await rejection(controller.restart({ id: "20260101T000000Z" }))).toMatchObject({ exit: "usage" });
    const [text, bytes] = [readFileSync(manifest, "utf8"), readFileSync(part)];
    const spoilt = Buffer.from(bytes);
    spoilt[bytes.length - 5] = (spoilt[bytes.length - 5] ?? 0) ^ 1;
    writeFileSync(part, spoilt);
    expect(await rejection(controller.restart({ id }))).toMatchObject({
      exit: "refused",
      message: expect.stringContaining("damaged"),
    });
    writeFileSync(part, bytes);
    for (const [from, to] of [
      ['"cluster": "fake"', '"cluster": "other"'],
      ['"version": 1', '"version": 2'],
    ] as const) {
      writeFileSync(manifest, text.replace(from, to));
      expect(await rejection(controller.restart({ id }))).toMatchObject({ exit: "refused" });
    }
    expectNothingRuns(w);
    writeFileSync(manifest, text);
    expect((await controller.restart({ id })).outcome).toBe("done");
  });

  const failing: FakeOp[] = ["launch", "restore", "resume", "setLinks", "attach"];
  it.each(failing)(
    "that fails in %s ends what it started, puts the disks back, and says what to do",
    async (op) => {
      const { w, controller, id } = await afterDeath();
      w.fault = (now, where) => {
        if (now === op && where.startsWith("vm2@")) throw new SymvirtError("refused", `no ${op} today`);
      };
      const report = await controller.restart({ id });
      expect(report).toMatchObject({ outcome: "rolled-back", complete: true });
      expect(report.message).toContain(`no ${op} today`);
      expect(report.message).toContain(`symvirt restart ${id}`);
      expectNothingRuns(w);
      w.fault = () => undefined;
      expect((await controller.restart({ id })).outcome).toBe("done");
      expectRestarted(w, ["h1", "h2"]);
    },
  );

  it("that is aborted is undone", async () => {
    const { w, controller, id } = await afterDeath();
    const abort = new AbortController();
    w.fault = (op) => {
      if (op === "attach") abort.abort(new SymvirtError("interrupted", "asked to stop"));
    };
    const report = await controller.restart({ id, signal: abort.signal });
    expect(report).toMatchObject({
      outcome: "rolled-back",
      message: expect.stringContaining("asked to stop"),
    });
    expectNothingRuns(w);
  });

  it("whose controller was killed is undone by abort", async () => {
    const { w, controller, id } = await afterDeath();
    const { target } = await controller.planRestart({ id });
    if (target === undefined) throw new Error("refused");
    openStateFolder(w.cluster.state);
    const journal = new Journal(w.cluster.state);
    journal.append({ kind: "begin", pid: 1, verb: "restart", target });
    journal.append({
      kind: "phase",
      cycle: target.cycle,
      event: "begin",
      phase: "load",
      step: 0,
      effects: [],
    });
    w.processes.set("vm1@h1", { status: "paused", cards: new Map(), moved: false, channel: undefined });
    writeFileSync(`${w.diskOf("vm1")}.before-restart`, "later disk of vm1");
    writeFileSync(w.diskOf("vm1"), "first disk of vm1");
    // That of vm2 was about to be replaced.
    linkSync(w.diskOf("vm2"), `${w.diskOf("vm2")}.before-restart`);
    writeFileSync(`${w.diskOf("vm2")}.restart.0123456789ab`, "half a disk");
    expect(await rejection(controller.restart({ id }))).toMatchObject({
      exit: "refused",
      message: expect.stringContaining(`(restart ${id}) was interrupted`),
    });
    expect(await controller.abort()).toMatchObject({ outcome: "rolled-back" });
    expectNothingRuns(w);
    const left = readdirSync(dirname(w.diskOf("vm1"))).filter((name) => name.includes("restart"));
    expect(left).toEqual([]);
    expect(new CheckpointStore(w.cluster).list().map((e) => e.state)).toEqual(["complete"]);
    expect((await controller.restart({ id })).outcome).toBe("done");
  });
});

function host2(w: FakeCluster, host: string) {
  const found = w.cluster.hosts[host];
  if (found === undefined) throw new Error(`no ${host}`);
  return found;
}
