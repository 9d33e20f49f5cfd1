/** `checkpoint` over fake VMs and a real store: in order, failing at every step, aborted, and its controller killed. */
import { existsSync, mkdirSync, renameSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { CheckpointStore } from "../../src/checkpoint/store.js";
import { openStateFolder } from "../../src/controller/session.js";
import { type CycleTarget, Journal } from "../../src/controller/state/journal.js";
import type { Strategy } from "../../src/controller/strategy.js";
import { SymvirtError } from "../../src/errors.js";
import { calm, controllerOf, expectWell, world } from "../support/controller-world.js";
import { type FakeCluster, type FakeOp, hang } from "../support/fake-cluster.js";

const storeOf = (w: FakeCluster) => new CheckpointStore(w.cluster);

/** All VMs run where they were, with cards, joined wires and ranks over openib. */
function expectAsBefore(w: FakeCluster): void {
  expectWell(w, "vm1", "h1");
  expectWell(w, "vm2", "h2");
  for (const process of w.processes.values()) expect(process.linksUp ?? true).toBe(true);
}

const strategies: Strategy[] = ["park", "live"];
describe.each(strategies)("a checkpoint, strategy %s", (strategy) => {
  it("joins all wires at once when it is given up, and not only when the captures have ended", async () => {
    const w = world({ deadlines: calm });
    let release = (): void => undefined;
    const ended = new Promise<void>((resolve) => (release = resolve));
    const joined: boolean[] = [];
    w.fault = async (op, where) => {
      if (op !== "capture") return undefined;
      if (where === "vm1@h1") throw new SymvirtError("rolledBack", "the store is gone");
      // The other one's stream is read to its end first.
      while (w.processes.get("vm2@h2")?.linksUp !== true) await new Promise((r) => setTimeout(r, 5));
      joined.push(true);
      release();
      return undefined;
    };
    const report = await (await controllerOf(w, 30_000)).checkpoint({ strategy: "park" });
    await ended;
    expect(joined).toEqual([true]);
    expect([report.outcome, report.message]).toEqual([
      "rolled-back",
      expect.stringContaining("the store is gone"),
    ]);
    expectWell(w, "vm1", "h1");
  });

  it("captures no VM before all wires are cut, and joins those of each when it is captured", async () => {
    const w = world({ strategy, deadlines: calm });
    const report = await (await controllerOf(w, 30_000)).checkpoint({ name: "first", strategy });
    expect(report).toMatchObject({ outcome: "done", verb: "checkpoint", complete: true, strategy });
    expectAsBefore(w);
    const of = (text: string) => w.calls.flatMap((call, i) => (call.startsWith(text) ? [i] : []));
    expect([of("links down"), of("taken"), of("links up"), of("attach")].map((x) => x.length)).toEqual([
      2, 2, 2, 2,
    ]);
    expect(Math.max(...of("detach"))).toBeLessThan(Math.min(...of("links down")));
    expect(Math.max(...of("hold"))).toBeLessThan(Math.min(...of("links down")));
    expect(Math.max(...of("links down"))).toBeLessThan(Math.min(...of("capture")));
    for (const vm of ["vm1", "vm2"])
      expect(w.calls.indexOf(`taken ${vm}`)).toBeLessThan(w.calls.indexOf(`links up ${vm}`));
    expect(Math.max(...of("links up"))).toBeLessThan(Math.min(...of("attach")));
    const epochs = [...w.guests.values()].flatMap((g) => g.ranks.map((r) => r.report.epoch));
    expect(epochs).toEqual([2, 2, 2, 2]);

    const manifest = storeOf(w).read(report.checkpoint);
    expect(manifest.id).toMatch(/-first$/);
    expect(
      manifest.vms.map(({ vm, host, cards, disks }) => [vm, host, cards[0]?.tag, disks[0]?.kept.kind]),
    ).toEqual([
      ["vm1", "h1", "hca0", "copy"],
      ["vm2", "h2", "hca0", "copy"],
    ]);
    expect(manifest.jobs[0]).toMatchObject({ job: "job.1", worldSize: 4 });
    expect(manifest.jobs[0]?.ranks.map((r) => r.epoch)).toEqual([1, 1, 1, 1]);
    expect((await storeOf(w).verify(manifest.id, { signal: AbortSignal.timeout(10_000) })).ok).toBe(true);
  });

  const failing: FakeOp[] = ["detach", "setLinks", "hold", "capture"];
  it.each(failing)("that fails in %s of one VM leaves all as they were and no checkpoint", async (op) => {
    const w = world({ strategy, deadlines: calm });
    let failed = false;
    w.fault = (now, where) => {
      if (now !== op || where !== "vm2@h2" || failed) return;
      failed = true;
      throw new SymvirtError("internal", `no ${op} today`);
    };
    const report = await (await controllerOf(w, 30_000)).checkpoint({ strategy });
    expect(report).toMatchObject({ outcome: "rolled-back", complete: false });
    expect(report.message).toContain(`no ${op} today`);
    expectAsBefore(w);
    expect(storeOf(w).list()).toEqual([]);
    w.fault = () => undefined;
    expect((await (await controllerOf(w, 30_000)).checkpoint({ strategy })).outcome).toBe("done");
  });

  it("is there although its job has come to its end meanwhile", async () => {
    const w = world({ strategy, deadlines: calm });
    w.fault = (op, where) => {
      if (op !== "capture" || where !== "vm2@h2") return;
      for (const guest of w.guests.values())
        for (const rank of guest.ranks) guest.set(rank, { state: "left" });
    };
    const report = await (await controllerOf(w, 30_000)).checkpoint({ strategy });
    expect(report).toMatchObject({ outcome: "done", complete: true });
    expectAsBefore(w);
  });

  it("is there although the cards came back at the second try only", async () => {
    const w = world({ strategy, deadlines: calm });
    let failed = false;
    w.fault = (op, where) => {
      if (op !== "attach" || where !== "vm1@h1" || failed) return;
      failed = true;
      throw new SymvirtError("refused", "the port is sticky");
    };
    const report = await (await controllerOf(w, 30_000)).checkpoint({ strategy });
    expect(report).toMatchObject({ outcome: "done", complete: true });
    expect(report.message).toContain("the port is sticky");
    expectAsBefore(w);
  });

  it("is there although a card does not come back, which needs a person", async () => {
    const w = world({ strategy, deadlines: { ...calm, linkUp: 300 } });
    w.deadPorts.add(w.cluster.hosts.h1?.cards.card0?.identity.mac ?? "");
    const controller = await controllerOf(w, 30_000);
    const report = await controller.checkpoint({ strategy });
    expect(report).toMatchObject({ outcome: "needs-operator", complete: true });
    expect(
      storeOf(w)
        .list()
        .map((e) => e.state),
    ).toEqual(["complete"]);
    w.deadPorts.clear();
    for (const { mac } of w.guest("vm1").devices) w.guest("vm1").card(mac, "ACTIVE");
    expect(await controller.abort()).toMatchObject({ outcome: "done" });
    expectAsBefore(w);
  });

  it("whose VM dies while it is saved is no checkpoint; the other VM is as before, and a person is told", async () => {
    const w = world({ strategy, deadlines: { ...calm, resume: 1000 } });
    const earlier = await (await controllerOf(w, 30_000)).checkpoint({ strategy });
    w.fault = (op, where) => {
      if (op !== "capture" || where !== "vm2@h2") return;
      w.die("vm2", "h2");
      throw new SymvirtError("unreachable", "QMP of vm2 on h2: connection lost");
    };
    const report = await (await controllerOf(w, 30_000)).checkpoint({ strategy });
    expect(report).toMatchObject({ outcome: "needs-operator", complete: false });
    expect(report.message).toContain("connection lost");
    expect(report.message).toContain("vm2 no longer runs on h2");
    expect(report.message).toContain("end the VMs that are left and run `symvirt restart`");
    const vm1 = w.processes.get("vm1@h1");
    expect([vm1?.status, vm1?.linksUp]).toEqual(["running", true]);
    expect(
      storeOf(w)
        .list()
        .map((e) => [e.id, e.state]),
    ).toEqual([[earlier.checkpoint, "complete"]]);
    w.fault = () => undefined;
    w.die("vm1", "h1");
    const back = await (await controllerOf(w, 30_000)).restart({ id: earlier.checkpoint });
    expect(back).toMatchObject({ outcome: "done" });
    expectAsBefore(w);
  });

  it("is given up when it is aborted while memory is captured", async () => {
    const w = world({ strategy, deadlines: calm });
    const abort = new AbortController();
    w.fault = async (op, where, signal) => {
      if (op !== "capture" || where !== "vm1@h1") return;
      abort.abort(new SymvirtError("interrupted", "asked to stop"));
      await hang(signal);
    };
    const report = await (await controllerOf(w, 30_000)).checkpoint({ signal: abort.signal, strategy });
    expect(report).toMatchObject({ outcome: "rolled-back" });
    expect(report.message).toContain("asked to stop");
    expectAsBefore(w);
    expect(storeOf(w).list()).toEqual([]);
  });

  it.each(["drain", "detach", "hold", "cut", "attach"])(
    "whose controller was killed in %s is finished by abort",
    async (phase) => {
      const w = world({ strategy, deadlines: calm });
      const controller = await controllerOf(w, 30_000);
      const kept = phase === "attach" ? (await controller.checkpoint({ strategy })).checkpoint : undefined;
      killedIn(w, phase, strategy, kept ?? "20260101T000000Z");
      expect(new Journal(w.cluster.state).interrupted()?.phase).toBe(phase);
      await expect(controller.checkpoint({ strategy })).rejects.toMatchObject({
        exit: "refused",
        message: expect.stringContaining("(checkpoint) was interrupted"),
      });
      const outcome = await controller.abort();
      expect(outcome).toMatchObject({ outcome: kept === undefined ? "rolled-back" : "done" });
      expectAsBefore(w);
      expect(
        storeOf(w)
          .list()
          .map((e) => e.id),
      ).toEqual(kept === undefined ? [] : [kept]);
      expect((await controller.checkpoint({ strategy })).outcome).toBe("done");
    },
  );
});

const order = ["drain", "tear-down", "wait", "detach", "hold", "cut", "save", "keep", "attach"];

/** Journal, store and VMs as a controller leaves them that is killed in a phase. */
function killedIn(w: FakeCluster, last: string, strategy: Strategy, checkpoint: string): void {
  openStateFolder(w.cluster.state);
  const journal = new Journal(w.cluster.state);
  const cycle = 12;
  const slot = { tag: "hca0", bus: "rp0", card: "card0" };
  const target: CycleTarget = {
    ...{ cycle, vm: "vm1", from: "h1", to: "h1", cards: [], strategy, leave: true, comeBack: true },
    jobs: [
      {
        ...{ job: "job.1", worldSize: 4 },
        ranks: [0, 1, 2, 3].map((rank) => ({
          ...{ rank, vm: rank < 2 ? "vm1" : "vm2", tcpOnly: false, away: false },
          epoch: w.guest(rank < 2 ? "vm1" : "vm2").ranks[rank % 2]?.report.epoch ?? 1,
        })),
      },
    ],
    set: {
      checkpoint,
      vms: [
        { vm: "vm1", host: "h1", cards: [slot], images: [] },
        { vm: "vm2", host: "h2", cards: [slot], images: [] },
      ],
    },
  };
  journal.append({ kind: "begin", pid: 1, verb: "checkpoint", target });
  const phases = order.slice(0, order.indexOf(last) + 1);
  for (const phase of phases) {
    if (phase === "tear-down") journal.append({ kind: "quiet", cycle, step: 1, job: "job.1" });
    journal.append({ kind: "phase", cycle, event: "ok", phase, step: 1, effects: [] });
  }
  const folder = join(w.cluster.checkpoints?.path ?? "", checkpoint);
  if (!existsSync(folder)) {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    writeFileSync(join(folder, "vm1.ram.zst"), "the beginning of it");
  }
  if (!phases.includes("detach")) return;
  for (const guest of w.guests.values()) {
    guest.devices = [];
    for (const rank of guest.ranks) {
      rank.torn = true;
      if (strategy === "live") rank.away = new Set([0, 1, 2, 3]);
      const side =
        strategy === "live"
          ? ({ state: "running", route: "tcp" } as const)
          : ({ state: "parked", route: "none" } as const);
      rank.report = { ...rank.report, ...side, cycle, step: 1, openDescriptors: 0 };
    }
  }
  for (const process of w.processes.values()) {
    process.cards.clear();
    if (last === "cut") Object.assign(process, { linksUp: false, status: "paused" });
  }
}

it("abort lets the others go although a VM has died, and says which", async () => {
  const w = world({ strategy: "park", deadlines: calm });
  killedIn(w, "cut", "park", "20260101T000000Z");
  w.die("vm2", "h2");
  const outcome = await (await controllerOf(w, 30_000)).abort();
  expect(outcome).toMatchObject({
    outcome: "needs-operator",
    message: expect.stringContaining("vm2 no longer runs, and its jobs have ended"),
  });
  expect(w.processes.get("vm1@h1")?.cards.size).toBe(1);
  expect(new Journal(w.cluster.state).interrupted()).toBeUndefined();
  const left = w.processes.get("vm1@h1");
  expect([left?.status, left?.linksUp]).toEqual(["running", true]);
});

it("two clusters make checkpoints in one store at a time, and leave each other's alone", async () => {
  const [one, two] = [world({ deadlines: calm }), world({ deadlines: calm })];
  two.cluster.name = "two";
  two.cluster.checkpoints = { ...storeSettings(one), keep: 1 };
  one.cluster.checkpoints = { ...storeSettings(one), keep: 1 };
  const take = async (w: FakeCluster) =>
    (await (await controllerOf(w, 30_000)).checkpoint({ name: "n" })).checkpoint;
  const first = await Promise.all([take(one), take(two)]);
  expect(new Set(first).size).toBe(2);
  const [ours, theirs] = await Promise.all([take(one), take(two)]);
  const states = (w: FakeCluster) =>
    new Map(
      storeOf(w)
        .list()
        .map((e) => [e.id, e.state]),
    );
  expect(states(one)).toEqual(
    new Map([
      [ours, "complete"],
      [theirs, "foreign"],
    ]),
  );
  expect(states(two)).toEqual(
    new Map([
      [ours, "foreign"],
      [theirs, "complete"],
    ]),
  );
  one.killAll();
  await expect((await controllerOf(one, 30_000)).restart({ id: theirs })).rejects.toMatchObject({
    exit: "refused",
  });
  expect((await (await controllerOf(one, 30_000)).restart({ id: ours })).outcome).toBe("done");
  expectAsBefore(one);
  expectAsBefore(two);
});

function storeSettings({ cluster }: FakeCluster) {
  if (cluster.checkpoints === undefined) throw new Error("the world has no store");
  return cluster.checkpoints;
}

describe("a checkpoint is refused, with nothing touched,", () => {
  const refused = async (w: FakeCluster) =>
    await (await controllerOf(w, 30_000)).checkpoint().then(
      () => new Error("it was made"),
      (error: unknown) => error,
    );

  it("without a store", async () => {
    const w = world({ deadlines: calm });
    delete w.cluster.checkpoints;
    expect(await refused(w)).toMatchObject({
      exit: "usage",
      message: expect.stringContaining("has no checkpoint store"),
    });
  });

  it("with a VM that does not run, a rank that is not reported, and a stranger on the card; all at once", async () => {
    const w = world({ deadlines: calm });
    w.guest("vm2").ranks.pop();
    w.guest("vm1").holders = [{ pid: 77, command: "perftest", what: "/dev/infiniband/uverbs0" }];
    const error = (await refused(w)) as SymvirtError;
    expect(error.exit).toBe("refused");
    for (const word of ["4 ranks, but only 3", "pid 77 (perftest)"]) expect(error.message).toContain(word);
    expect(w.calls).toEqual([]);
    expect(storeOf(w).list()).toEqual([]);
  });

  it("with a disk that is a link, which a restart would replace by a file", async () => {
    const w = world({ deadlines: calm });
    renameSync(w.diskOf("vm2"), `${w.diskOf("vm2")}.real`);
    symlinkSync(`${w.diskOf("vm2")}.real`, w.diskOf("vm2"));
    expect(await refused(w)).toMatchObject({
      exit: "refused",
      message: expect.stringContaining(`${w.diskOf("vm2")}, a disk of vm2, is no file on h2`),
    });
    expect(w.calls).toEqual([]);
  });

  it("with a VM whose VMM does not answer", async () => {
    const w = world({ deadlines: calm });
    w.processes.delete("vm2@h2");
    const error = (await refused(w)) as SymvirtError;
    for (const word of ["QMP of vm2 on h2 does not answer", "only 2 of them"])
      expect(error.message).toContain(word);
    expect(w.calls).toEqual([]);
  });
});
