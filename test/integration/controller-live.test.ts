/** Strategy live over scripted guests: the ranks run on over tcp while their VM moves. */
import { describe, expect, it } from "vitest";
import type { Phase } from "../../src/controller/cycle.js";
import type { TrafficSample } from "../../src/controller/traffic-sampler.js";
import { SymvirtError } from "../../src/errors.js";
import { controllerOf, expectWell, world } from "../support/controller-world.js";
import type { FakeCluster } from "../support/fake-cluster.js";
import { hang } from "../support/fake-cluster.js";

const live = (options: ConstructorParameters<typeof FakeCluster>[0] = {}) =>
  world({ strategy: "live", ...options });
const ranksOf = (w: FakeCluster) => [...w.guests.values()].flatMap((g) => g.ranks);
const statesSeen = (w: FakeCluster) => [...w.guests.values()].flatMap((g) => g.statesSeen);

/** The ranks of vm1 run over tcp, the others over openib, and no rank is held. */
function expectOverTcp(w: FakeCluster): void {
  expect(ranksOf(w).map((r) => r.report.route)).toEqual(["tcp", "tcp", "openib", "openib"]);
  for (const { report } of ranksOf(w)) expect(["running", "failed"]).toContain(report.state);
}

describe("live migrate", () => {
  it("moves a VM while the ranks run over tcp, and brings openib back", async () => {
    const w = live();
    let during: string[] = [];
    const report = await (
      await controllerOf(w)
    ).migrate({
      vm: "vm1",
      to: "h3",
      onProgress: (_, { phase }) => {
        if (phase === "pre-copy") during = ranksOf(w).map((r) => `${r.report.state} ${r.report.route}`);
      },
    });
    expect(report).toMatchObject({ outcome: "done", strategy: "live" });
    expect(during).toEqual(["running tcp", "running tcp", "running openib", "running openib"]);
    expectWell(w, "vm1", "h3");
    expect(w.guest("vm1").wants.map((x) => [x.phase, x.step, x.quietComplete])).toEqual([
      ["run-tcp", 1, false],
      // Told again over the new channel, with the mark.
      ["run-tcp", 1, true],
      ["run-openib", 2, true],
    ]);
    // Those that stay never left the card: they keep their generation of openib.
    expect(report.ranks.map((r) => [r.moved, r.before.epoch, r.after.epoch])).toEqual([
      ...[
        [true, 1, 2],
        [true, 1, 2],
        [false, 1, 1],
        [false, 1, 1],
      ],
    ]);
    expect(statesSeen(w)).not.toContain("parked");
  });

  it("follows the ranks' counters while the cycle runs, if asked to", async () => {
    const w = live();
    const samples: TrafficSample[] = [];
    const ranks = ranksOf(w);
    const report = await (
      await controllerOf(w)
    ).migrate({
      vm: "vm1",
      to: "h3",
      onProgress: () => {
        for (const rank of ranks)
          rank.report = {
            ...rank.report,
            tcp: { ...rank.report.tcp, sentBytes: rank.report.tcp.sentBytes + 10 },
          };
      },
      sampling: { everyMs: 1, onSample: (sample) => samples.push(sample) },
    });
    expect(report.outcome).toBe("done");
    const endMs = Date.parse(report.startedAt) + report.totalMs;
    for (const rank of [0, 1, 2, 3]) {
      const own = samples.filter((s) => s.rank === rank);
      expect(own.length).toBeGreaterThan(2);
      expect(new Set(own.map((s) => s.vm))).toEqual(new Set([rank < 2 ? "vm1" : "vm2"]));
      const bytes = own.map((s) => s.tcp.sentBytes);
      expect(bytes).toEqual([...bytes].sort((a, b) => a - b));
      expect(new Set(bytes).size).toBeGreaterThan(2);
      for (const { askedMs, atMs } of own) {
        expect(askedMs).toBeLessThanOrEqual(atMs);
        // The report's own last look at the counters may come after its end.
        expect(askedMs).toBeLessThanOrEqual(endMs + 1000);
      }
    }
    const asked = [...w.guests.values()].map((g) => g.samplesAsked);
    await (await controllerOf(w)).migrate({ vm: "vm1", to: "h1" });
    expect([...w.guests.values()].map((g) => g.samplesAsked)).toEqual(asked);
  });

  it("takes no sample of a rank from a VM that does not own it", async () => {
    const w = live();
    const samples: TrafficSample[] = [];
    const hostile = w.guest("vm2");
    hostile.samplesAsRank = 0;
    await (
      await controllerOf(w)
    ).migrate({ vm: "vm1", to: "h3", sampling: { everyMs: 1, onSample: (sample) => samples.push(sample) } });
    expect(samples.length).toBeGreaterThan(0);
    expect(samples.filter((s) => s.vm === "vm2")).toEqual([]);
  });

  it("moves it again and back", async () => {
    const w = live();
    const controller = await controllerOf(w);
    for (const to of ["h3", "h1", "h3"]) {
      expect(await controller.migrate({ vm: "vm1", to })).toMatchObject({ outcome: "done" });
      expectWell(w, "vm1", to);
    }
  });

  it("survives channels that break and agents that restart in every phase", async () => {
    const w = live();
    const seen = new Set<Phase>();
    const report = await (
      await controllerOf(w)
    ).migrate({
      vm: "vm1",
      to: "h3",
      onProgress: (_, { phase }) => {
        if (seen.has(phase)) return;
        seen.add(phase);
        w.guest("vm2").drop();
      },
    });
    expect(report.outcome).toBe("done");
    expectWell(w, "vm1", "h3");
  });

  it.each([
    [{ wholeOnly: true }, "rank 2 of job job.1 cannot tell the traffic of its peers apart"],
    [{ windows: 2 }, "rank 2 of job job.1 has 2 one-sided windows"],
  ])("changes the whole job over with %j, and plan says why", async (change, why) => {
    const w = live();
    const [rank] = w.guest("vm2").ranks;
    if (rank !== undefined) Object.assign(rank.report, change);
    const controller = await controllerOf(w);
    const plan = await controller.plan({ vm: "vm1", to: "h3" });
    expect(plan.strategy).toBe("live");
    expect(plan.findings).toContainEqual(
      expect.objectContaining({ level: "note", text: expect.stringContaining(why) }),
    );
    expect(plan.steps).toContainEqual("let the 4 ranks of job job.1 on vm1, vm2 run on over tcp");
    const report = await controller.migrate({ vm: "vm1", to: "h3" });
    expect(report).toMatchObject({ outcome: "done", strategy: "live" });
    expect(report.ranks.map((r) => [r.moved, r.after.epoch])).toEqual(Array(4).fill([true, 2]));
    for (const guest of w.guests.values())
      expect(guest.wants.map((x) => x.moving)).toEqual(guest.wants.map(() => undefined));
    expect(statesSeen(w)).not.toContain("parked");
    expectWell(w, "vm1", "h3");
  });

  it("parks a job with a rank that knows tcp only among others, and follows --strategy park", async () => {
    const w = live();
    const controller = await controllerOf(w);
    expect((await controller.plan({ vm: "vm1", to: "h3", strategy: "park" })).strategy).toBe("park");
    const [rank] = w.guest("vm2").ranks;
    if (rank !== undefined) rank.report.tcpOnly = true;
    const plan = await controller.plan({ vm: "vm1", to: "h3" });
    expect(plan.strategy).toBe("park");
    expect(plan.findings[0]?.text).toContain("knows tcp only");
  });
});

describe("live: ways back", () => {
  it("late rank: the others have flipped, the deadline rolls back, the epoch stays", async () => {
    const w = live({ deadlines: { park: 300 } });
    const [rank] = w.guest("vm2").ranks;
    if (rank !== undefined) rank.late = true;
    const report = await (await controllerOf(w)).migrate({ vm: "vm1", to: "h3" });
    expect(report).toMatchObject({ outcome: "rolled-back", strategy: "live" });
    expect(report.message).toContain("rank 2 on vm2 (pid 1002) is late");
    expectWell(w, "vm1", "h1");
    expect(w.guest("vm1").wants.at(-1)).toMatchObject({ phase: "run-openib", quietComplete: false });
    expect(ranksOf(w).map((r) => r.report.epoch)).toEqual([1, 1, 1, 1]);
    expect(w.calls).not.toContain("detach vm1@h1");
  });

  it.each(["pre-copy", "link-up"])("a job that comes to its end in %s", async (when) => {
    const w = live();
    let ended = false;
    const report = await (
      await controllerOf(w)
    ).migrate({
      vm: "vm1",
      to: "h3",
      onProgress: (_, { phase }) => {
        if (phase !== when || ended) return;
        ended = true;
        for (const guest of w.guests.values())
          for (const rank of guest.ranks) guest.set(rank, { state: "left" });
      },
    });
    expect(report).toMatchObject({ outcome: "done" });
    expectWell(w, "vm1", "h3");
  });

  it("a leave that fails in one rank", async () => {
    const w = live();
    const [rank] = w.guest("vm2").ranks;
    if (rank !== undefined) rank.failLeave = true;
    const report = await (await controllerOf(w)).migrate({ vm: "vm1", to: "h3" });
    expect(report.outcome).toBe("rolled-back");
    expect(report.message).toContain("tcp does not reach rank 0");
    expectWell(w, "vm1", "h1");
  });

  it("abort after the quiet set: the ranks finish leaving before they are told to come back", async () => {
    const w = live();
    w.guest("vm1").stuckTearDown = true;
    const abort = new AbortController();
    const phases: Phase[] = [];
    const report = await (
      await controllerOf(w)
    ).migrate({
      vm: "vm1",
      to: "h3",
      signal: abort.signal,
      onProgress: (_, { phase }) => {
        if (phases.at(-1) !== phase) phases.push(phase);
        if (phase === "tear-down") setImmediate(() => abort.abort(new Error("the operator said so")));
        if (phase === "undo:settle") setTimeout(() => w.guest("vm1").letTearDown(), 50);
      },
    });
    expect(report.outcome).toBe("rolled-back");
    expect(phases).toContain("undo:settle");
    expectWell(w, "vm1", "h1");
    expect(ranksOf(w).map((r) => r.report.epoch)).toEqual([2, 2, 1, 1]);
    expect(w.guest("vm2").wants.at(-1)).toMatchObject({ phase: "run-openib", quietComplete: true });
  });

  const phases: Phase[] = [
    "prepare",
    "drain",
    "tear-down",
    "wait",
    "detach",
    "pre-copy",
    "switch-over",
    "attach",
    "link-up",
    "re-init",
  ];
  const ops = new Set<Phase>(["prepare", "detach", "pre-copy", "switch-over", "attach"]);
  it.each(phases)("abort in phase %s ends on the source with the ranks over openib", async (phase) => {
    const w = live();
    const abort = new AbortController();
    let pending = false;
    w.fault = (_, __, signal) => (abort.signal.aborted || !pending ? undefined : hang(signal));
    const report = await (
      await controllerOf(w)
    ).migrate({
      vm: "vm1",
      to: "h3",
      signal: abort.signal,
      onProgress: (_, progress) => {
        if (progress.phase !== phase || abort.signal.aborted) return;
        pending = true;
        const stop = () => abort.abort(new Error("the operator said so"));
        if (ops.has(phase)) setImmediate(stop);
        else stop();
      },
    });
    expect(report).toMatchObject({ outcome: "rolled-back", strategy: "live" });
    expectWell(w, "vm1", "h1");
    expect(w.processes.has("vm1@h3")).toBe(false);
    expect(statesSeen(w)).not.toContain("parked");
  });

  it("re-init fails once, and works when tried again", async () => {
    const w = live();
    const [rank] = w.guest("vm1").ranks;
    if (rank !== undefined) rank.failReinit = 1;
    expect((await (await controllerOf(w)).migrate({ vm: "vm1", to: "h3" })).outcome).toBe("done");
    expectWell(w, "vm1", "h3");
  });

  it("re-init fails twice at the destination: the VM goes back, and there it works", async () => {
    const w = live();
    const [rank] = w.guest("vm1").ranks;
    if (rank !== undefined) rank.failReinit = 2;
    const report = await (await controllerOf(w)).migrate({ vm: "vm1", to: "h3" });
    expect(report.outcome).toBe("rolled-back");
    expect(report.message).toContain("rank 0 on vm1: no usable port (error -19)");
    expectWell(w, "vm1", "h1");
  });

  it("re-init fails everywhere: the job runs over tcp (exit 6), and recover brings openib back", async () => {
    const w = live();
    const [rank] = w.guest("vm1").ranks;
    if (rank !== undefined) rank.failReinit = 4;
    const controller = await controllerOf(w);
    const report = await controller.migrate({ vm: "vm1", to: "h3" });
    expect(report.outcome).toBe("needs-operator");
    expect(report.message).toMatch(
      /^vm1 is on h1 and its ranks run over tcp there: .*`symvirt recover vm1` brings openib back/,
    );
    expect(w.runsOn("vm1")).toBe("h1");
    expectOverTcp(w);
    expect(w.processes.has("vm1@h3")).toBe(false);
    expect((await controller.recover({ vm: "vm1" })).outcome).toBe("done");
    expectWell(w, "vm1", "h1");
  });

  it("the card does not come back on the source: abort finishes, the job runs meanwhile", async () => {
    const w = live();
    w.fault = (op, where) => {
      if (op === "migrate") throw new SymvirtError("needsOperator", "stream broken");
      if (op === "attach" && where === "vm1@h1") throw new SymvirtError("needsOperator", "root port is gone");
    };
    const controller = await controllerOf(w);
    const report = await controller.migrate({ vm: "vm1", to: "h3" });
    expect(report.message).toMatch(/^vm1 is on h1 without its card, its jobs run: .*root port is gone/);
    expectOverTcp(w);
    w.fault = () => undefined;
    expect((await controller.abort()).outcome).toBe("rolled-back");
    expectWell(w, "vm1", "h1");
  });
});

describe("a host without a card", () => {
  const bare = () => {
    const w = live();
    const h3 = w.cluster.hosts.h3;
    const cards = h3?.cards ?? {};
    if (h3 !== undefined) h3.cards = {};
    const offer = () => {
      if (h3 !== undefined) h3.cards = cards;
    };
    return { w, offer };
  };

  it("takes the VM: the job stays on tcp until recover finds a card", async () => {
    const { w, offer } = bare();
    const controller = await controllerOf(w);
    const plan = await controller.plan({ vm: "vm1", to: "h3" });
    expect(plan.findings.map((f) => f.text).join()).toContain("the ranks stay on tcp: vm1 will have no card");
    const report = await controller.migrate({ vm: "vm1", to: "h3" });
    expect(report).toMatchObject({ outcome: "done", strategy: "live" });
    expect(report.message).toContain(
      "its ranks over tcp with every peer: `symvirt recover vm1` brings openib back",
    );
    expect(w.runsOn("vm1")).toBe("h3");
    expect(w.cardsOf("vm1")).toEqual([]);
    expectOverTcp(w);
    await expect(controller.recover({ vm: "vm1" })).rejects.toMatchObject({
      exit: "refused",
      message: expect.stringContaining("h3 has no free card"),
    });
    offer();
    expect(await controller.recover({ vm: "vm1" })).toMatchObject({ outcome: "done", verb: "recover" });
    expectWell(w, "vm1", "h3");
    await expect(controller.recover({ vm: "vm1" })).rejects.toMatchObject({ exit: "refused" });
  });

  it("and a further migrate to a host with a card brings openib back, without a leave", async () => {
    const { w } = bare();
    const controller = await controllerOf(w);
    await controller.migrate({ vm: "vm1", to: "h3" });
    const report = await controller.migrate({ vm: "vm1", to: "h1" });
    expect(report.outcome).toBe("done");
    expect(report.phases.map((p) => p.phase)).not.toContain("drain");
    expectWell(w, "vm1", "h1");
  });

  it("is refused under park, and nothing is touched", async () => {
    const { w } = bare();
    const controller = await controllerOf(w);
    await expect(controller.migrate({ vm: "vm1", to: "h3", strategy: "park" })).rejects.toMatchObject({
      exit: "refused",
    });
    expect(w.calls).toEqual([]);
  });

  it("recover that fails leaves the job on tcp and takes the card out again", async () => {
    const { w, offer } = bare();
    const controller = await controllerOf(w);
    await controller.migrate({ vm: "vm1", to: "h3" });
    offer();
    const [rank] = w.guest("vm1").ranks;
    if (rank !== undefined) rank.failReinit = 2;
    const report = await controller.recover({ vm: "vm1" });
    expect(report.outcome).toBe("rolled-back");
    expect(report.message).toContain("the ranks on vm1 run over tcp as before");
    expectOverTcp(w);
    expect(w.cardsOf("vm1")).toEqual([]);
    expect((await controller.recover({ vm: "vm1" })).outcome).toBe("done");
    expectWell(w, "vm1", "h3");
  });
});
