/** Cooperative convergence over scripted guests: pre-copy does not end before the ranks of the moving VM stand still. */
import { describe, expect, it } from "vitest";
import { OUTRUN_MS } from "../../src/controller/outrun.js";
import { Journal } from "../../src/controller/state/journal.js";
import { SymvirtError } from "../../src/errors.js";
import { controllerOf, expectWell, world } from "../support/controller-world.js";
import type { FakeCluster } from "../support/fake-cluster.js";

const statesOf = (w: FakeCluster, vm: string) => w.guest(vm).ranks.map((r) => r.report.state);
const isHeld = (w: FakeCluster, vm = "vm1") => statesOf(w, vm).every((state) => state === "held");

/** Looks at a pre-copy for which it lasts on: enough turns of the event loop for the host to hear what the guest says. */
const LAST_PASS = 20;

/** True once `holds` has been so for a last pass. */
function aPassAfter(holds: () => boolean): () => boolean {
  let looks = 0;
  return () => {
    looks = holds() ? looks + 1 : 0;
    return looks > LAST_PASS;
  };
}

/** A live world whose pre-copy ends only when every rank of vm1 is held. */
function busy(options: ConstructorParameters<typeof FakeCluster>[0] = {}): FakeCluster {
  const w = world({ strategy: "live", ...options });
  w.converges = aPassAfter(() => isHeld(w));
  return w;
}

/** Nobody is held, and nobody was ever parked or held on the VM that stays. */
function expectFree(w: FakeCluster): void {
  for (const vm of w.guests.keys()) expect(statesOf(w, vm)).not.toContain("held");
  for (const guest of w.guests.values()) expect(guest.statesSeen).not.toContain("parked");
  expect(w.guest("vm2").statesSeen).not.toContain("held");
  expect(w.guest("vm2").wants.map((x) => x.phase)).not.toContain("hold");
}

describe("pre-copy that does not end by itself", () => {
  it("ends after the time that is set: the ranks of that VM are held, and go on at the destination", async () => {
    const w = busy();
    const report = await (
      await controllerOf(w)
    ).migrate({ vm: "vm1", to: "h3", limits: { parkAfterMs: 100 } });
    expect(report).toMatchObject({ outcome: "done", strategy: "live" });
    expectWell(w, "vm1", "h3");
    expectFree(w);
    const [hold, ...more] = report.holds;
    expect(more).toEqual([]);
    expect(hold).toMatchObject({ cause: "pre-copy had not ended after 0.1 s", late: [] });
    const { orderedMs = -1, heldMs, releasedMs, goneOnMs } = hold ?? {};
    const preCopy = report.phases.find((p) => p.phase === "pre-copy");
    expect(orderedMs - (preCopy?.startMs ?? 0)).toBeGreaterThanOrEqual(98);
    const times = [orderedMs, heldMs, releasedMs, goneOnMs];
    expect(times).toEqual([...times].sort((a, b) => Number(a) - Number(b)));
    expect(report.phases).toContainEqual({
      vm: "vm1",
      phase: "held",
      startMs: orderedMs,
      ms: Number(goneOnMs) - orderedMs,
    });
    // The whole course of vm1's wants; the last of each step may be told again over a new channel.
    const told = w.guest("vm1").wants.map((x) => `${x.phase} ${x.step}`);
    expect([...new Set(told)]).toEqual(["run-tcp 1", "hold 2", "run-tcp 3", "run-openib 4"]);
    expect([...new Set(w.guest("vm2").wants.map((x) => `${x.phase} ${x.step}`))]).toEqual([
      "run-tcp 1",
      "run-openib 4",
    ]);
  });

  it("takes the time from the cluster file, and the command's word before it", async () => {
    const w = busy({ limits: { parkAfter: "50ms" } });
    const controller = await controllerOf(w);
    expect((await controller.migrate({ vm: "vm1", to: "h3" })).holds).toMatchObject([
      { cause: "pre-copy had not ended after 0.05 s" },
    ]);
    const report = await controller.migrate({ vm: "vm1", to: "h1", limits: { parkAfterMs: 70 } });
    expect(report.holds).toMatchObject([{ cause: "pre-copy had not ended after 0.07 s" }]);
    expectWell(w, "vm1", "h1");
  });

  it("ends when memory changes as fast as it is sent for some seconds", { timeout: 20_000 }, async () => {
    const w = busy({ deadlines: { migrate: 4 * OUTRUN_MS } });
    w.rates = { dirtyBytesPerSecond: 60e6, sentBytesPerSecond: 50e6 };
    const report = await (await controllerOf(w)).migrate({ vm: "vm1", to: "h3" });
    expect(report.outcome).toBe("done");
    expect(report.holds).toMatchObject([{ cause: "its memory changed as fast as it was sent", late: [] }]);
    const preCopy = report.phases.find((p) => p.phase === "pre-copy");
    expect((report.holds[0]?.orderedMs ?? 0) - (preCopy?.startMs ?? 0)).toBeGreaterThanOrEqual(OUTRUN_MS);
    expectWell(w, "vm1", "h3");
    expectFree(w);
  });

  it("never ends with parkAfter never, and the deadline rolls back", { timeout: 20_000 }, async () => {
    const w = busy({ deadlines: { migrate: OUTRUN_MS + 1500 }, limits: { parkAfter: "never" } });
    w.rates = { dirtyBytesPerSecond: 60e6, sentBytesPerSecond: 50e6 };
    const report = await (await controllerOf(w)).migrate({ vm: "vm1", to: "h3" });
    expect(report).toMatchObject({ outcome: "rolled-back", holds: [] });
    expect(report.message).toContain('the deadline "migrate"');
    expect(w.guest("vm1").statesSeen).not.toContain("held");
    expectWell(w, "vm1", "h1");
  });

  it("holds nobody when pre-copy ends before its time", async () => {
    const w = world({ strategy: "live" });
    const report = await (
      await controllerOf(w)
    ).migrate({ vm: "vm1", to: "h3", limits: { parkAfterMs: 60_000 } });
    expect(report).toMatchObject({ outcome: "done", holds: [] });
    expect(report.phases.map((p) => p.phase)).not.toContain("held");
  });

  it("does nothing under park, whose ranks stand still anyway", async () => {
    const w = world({ strategy: "park" });
    let polls = 0;
    w.converges = () => polls++ > 60;
    const report = await (
      await controllerOf(w)
    ).migrate({ vm: "vm1", to: "h3", limits: { parkAfterMs: 20 } });
    expect(report).toMatchObject({ outcome: "done", holds: [] });
    expect(w.guest("vm1").wants.map((x) => x.phase)).not.toContain("hold");
  });

  it("is shown by status and progress while it is so", async () => {
    const w = busy();
    const [, second] = w.guest("vm1").ranks;
    w.guest("vm1").computing.add(second?.report.rank ?? -1);
    const controller = await controllerOf(w);
    const seen: unknown[] = [];
    const running = controller.migrate({
      vm: "vm1",
      to: "h3",
      limits: { parkAfterMs: 50 },
      onProgress: (_, { hold }) => {
        if (hold !== undefined) seen.push(hold);
      },
    });
    await expect
      .poll(async () => (await controller.status()).running, { timeout: 5000 })
      .toMatchObject({
        phase: "pre-copy",
        hold: { overdue: false, late: [expect.stringContaining("rank 1 on vm1 (pid 1001) is late")] },
      });
    w.converges = () => true;
    expect((await running).outcome).toBe("done");
    expect(seen).not.toEqual([]);
  });
});

describe("a rank that computes", () => {
  it("is named in the report and nothing fails for it", async () => {
    const w = busy({ deadlines: { hold: 100 } });
    w.guest("vm1").computing.add(1);
    const told: string[][] = [];
    w.converges = aPassAfter(() => told.length > 0);
    const report = await (
      await controllerOf(w)
    ).migrate({
      ...{ vm: "vm1", to: "h3", limits: { parkAfterMs: 20 } },
      onProgress: (_, { hold }) => {
        if (hold?.overdue === true) told.push(hold.late);
      },
    });
    expect(report.outcome).toBe("done");
    expect(told[0]).toHaveLength(1);
    expect(report.holds).toMatchObject([
      { heldMs: null, late: [expect.stringMatching(/^rank 1 on vm1 \(pid 1001\) is late/)] },
    ]);
    expectWell(w, "vm1", "h3");
    expectFree(w);
  });

  it("that refuses is named with what it says", async () => {
    const w = busy();
    w.converges = aPassAfter(() => w.guest("vm1").ranks.every((r) => r.report.step === 2));
    const [rank] = w.guest("vm1").ranks;
    if (rank !== undefined) rank.refuseHold = true;
    const report = await (
      await controllerOf(w)
    ).migrate({ vm: "vm1", to: "h3", limits: { parkAfterMs: 20 } });
    expect(report.outcome).toBe("done");
    expect(report.holds[0]?.late).toEqual([expect.stringContaining("cannot be held: it uses its card")]);
    expectWell(w, "vm1", "h3");
  });
});

describe("held ranks are let go", () => {
  const limits = { parkAfterMs: 20 };

  it("when the cycle is aborted in pre-copy", async () => {
    const w = busy();
    w.converges = () => false;
    const abort = new AbortController();
    const report = await (
      await controllerOf(w)
    ).migrate({
      ...{ vm: "vm1", to: "h3", limits, signal: abort.signal },
      onProgress: (_, { hold }) => {
        if (hold?.late.length === 0) abort.abort(new Error("the operator said so"));
      },
    });
    expect(report).toMatchObject({ outcome: "rolled-back", holds: [{ late: [] }] });
    expect(report.holds[0]?.heldMs).not.toBeNull();
    expectWell(w, "vm1", "h1");
    expectFree(w);
  });

  it("when the stream breaks, and the card does not come back on the source", async () => {
    const w = busy();
    w.converges = () => {
      if (isHeld(w)) throw new SymvirtError("rolledBack", "stream broken");
      return false;
    };
    w.fault = (op, where) => {
      if (op === "attach" && where === "vm1@h1") throw new SymvirtError("needsOperator", "root port is gone");
    };
    const report = await (await controllerOf(w)).migrate({ vm: "vm1", to: "h3", limits });
    expect(report.outcome).toBe("needs-operator");
    expect(report.message).toMatch(/^vm1 is on h1 without its card, its jobs run: stream broken.*root port/);
    expect(statesOf(w, "vm1")).toEqual(["running", "running"]);
    expectFree(w);
  });

  it("when the switch-over fails", async () => {
    const w = busy();
    w.fault = (op, where) => {
      if (op === "resume" && where === "vm1@h3") throw new SymvirtError("needsOperator", "cannot resume");
    };
    const report = await (await controllerOf(w)).migrate({ vm: "vm1", to: "h3", limits });
    expect(report).toMatchObject({ outcome: "rolled-back" });
    expectWell(w, "vm1", "h1");
    expectFree(w);
  });

  it("on the way back too, whose pre-copy ends no better", async () => {
    const w = busy({ deadlines: { linkUp: 300 } });
    w.deadPorts.add(w.cluster.hosts.h3?.cards.card0?.identity.mac ?? "");
    const report = await (await controllerOf(w)).migrate({ vm: "vm1", to: "h3", limits });
    expect(report.outcome).toBe("rolled-back");
    expect(report.holds).toMatchObject([{ late: [] }, { late: [] }]);
    expect(report.phases.filter((p) => p.phase === "held")).toHaveLength(2);
    expectWell(w, "vm1", "h1");
    expectFree(w);
  });

  it("while channels break and agents restart", async () => {
    const w = busy();
    let dropped = 0;
    w.converges = () => {
      if (!isHeld(w)) return false;
      if (dropped === 0) w.guest("vm1").restart();
      if (dropped === 20) w.guest("vm1").drop();
      return dropped++ > 60 && isHeld(w);
    };
    const report = await (await controllerOf(w)).migrate({ vm: "vm1", to: "h3", limits });
    expect(report.outcome).toBe("done");
    expectWell(w, "vm1", "h3");
    expectFree(w);
  });

  it("is in the journal, for whoever takes over", async () => {
    const w = busy();
    await (await controllerOf(w)).migrate({ vm: "vm1", to: "h3", limits });
    const records = new Journal(w.cluster.state).read();
    const held = records.flatMap((r) => (r.kind === "phase" ? [[r.event, r.effects.join(), r.held]] : []));
    expect(held).toContainEqual(["hold", "hold step 2", true]);
    expect(held).toContainEqual(["ok", "release step 3,arm attach,resume-destination", undefined]);
  });
});
