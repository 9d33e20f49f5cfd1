/** A controller was killed in the middle of a cycle: the next verb refuses, `abort` finishes from what is so. */
import { describe, expect, it } from "vitest";
import { openStateFolder } from "../../src/controller/session.js";
import { type CycleTarget, Journal } from "../../src/controller/state/journal.js";
import { SymvirtError } from "../../src/errors.js";
import { controllerOf, expectWell, world } from "../support/controller-world.js";
import type { FakeCluster } from "../support/fake-cluster.js";

/** Journal and world as a controller leaves them that is killed in a phase. */
function killedIn(
  w: FakeCluster,
  phases: string[],
  strategy: "live" | "park" = "park",
  moving?: number[],
): void {
  openStateFolder(w.cluster.state);
  const journal = new Journal(w.cluster.state);
  const target: CycleTarget = {
    cycle: 12,
    vm: "vm1",
    from: "h1",
    to: "h3",
    strategy,
    leave: true,
    comeBack: true,
    cards: [{ tag: "hca0", bus: "rp0", source: "card0", destination: "card0" }],
    jobs: [
      {
        job: "job.1",
        worldSize: 4,
        ...(moving === undefined ? {} : { moving }),
        ranks: [0, 1, 2, 3].map((rank) => ({
          rank,
          vm: rank < 2 ? "vm1" : "vm2",
          epoch: 1,
          tcpOnly: false,
          away: false,
        })),
      },
    ],
  };
  journal.append({ kind: "begin", pid: 1, verb: "migrate", target });
  for (const phase of phases) {
    if (phase === "tear-down") journal.append({ kind: "quiet", cycle: 12, step: 1, job: "job.1" });
    journal.append({
      kind: "phase",
      cycle: 12,
      event: "ok",
      phase,
      step: phase === "prepare" ? 0 : 1,
      effects: [],
    });
  }
  w.processes.set("vm1@h3", { status: "inmigrate", cards: new Map(), moved: false, channel: undefined });
  if (!phases.includes("tear-down")) return;
  for (const guest of w.guests.values())
    for (const rank of guest.ranks) {
      rank.torn = true;
      rank.report = { ...rank.report, state: "parked", route: "none", cycle: 12, step: 1 };
    }
  if (!phases.includes("detach")) return;
  const source = w.processes.get("vm1@h1");
  source?.cards.clear();
  w.guest("vm1").devices = [];
}

const toPreCopy = ["prepare", "drain", "tear-down", "wait", "detach", "pre-copy"];

/** The world of a live cycle killed in pre-copy: the ranks that move run over tcp, the others as before. */
function killedLive(w: FakeCluster, phases: string[], moving?: number[]): void {
  killedIn(w, phases, "live", moving);
  if (!phases.includes("tear-down")) return;
  const movers = moving ?? [0, 1, 2, 3];
  for (const guest of w.guests.values())
    for (const rank of guest.ranks) {
      rank.torn = movers.includes(rank.report.rank);
      rank.away = new Set(movers);
      const side = rank.torn ? { route: "tcp" as const, openDescriptors: 0 } : { route: "openib" as const };
      rank.report = { ...rank.report, state: "running", ...side };
    }
}

const movers: [string, number[] | undefined][] = [
  ["of the whole job", undefined],
  ["of one VM's ranks", [0, 1]],
];
describe.each(movers)("an interrupted live cycle %s", (_, moving) => {
  const expectSameMovers = (w: FakeCluster) => {
    for (const guest of w.guests.values())
      for (const want of guest.wants) expect(want.moving).toEqual(moving);
    const epochs = [...w.guests.values()].flatMap((g) => g.ranks.map((r) => r.report.epoch));
    if (moving !== undefined) expect(epochs.slice(2)).toEqual([1, 1]);
  };

  it.each([["prepare"], ["drain"], ["wait"], ["detach"], ["pre-copy"]])(
    "in %s with the VM on the source is rolled back there",
    async (last) => {
      const w = world({ strategy: "live" });
      killedLive(w, toPreCopy.slice(0, toPreCopy.indexOf(last) + 1), moving);
      const outcome = await (await controllerOf(w)).abort();
      expect(outcome).toMatchObject({ outcome: "rolled-back", report: { strategy: "live" } });
      expectWell(w, "vm1", "h1");
      expectSameMovers(w);
    },
  );

  /** Held in pre-copy when the controller was killed. */
  function killedHolding(w: FakeCluster, phases: string[]): void {
    killedLive(w, phases);
    const journal = new Journal(w.cluster.state);
    const common = { kind: "phase", cycle: 12, step: 2 } as const;
    journal.append({ ...common, event: "hold", phase: "pre-copy", effects: ["hold step 2"], held: true });
    for (const rank of w.guest("vm1").ranks) rank.report = { ...rank.report, state: "held", step: 2 };
  }

  it("whose ranks were held lets them go on the source, before the card is attached", async () => {
    const w = world({ strategy: "live" });
    killedHolding(w, toPreCopy);
    let whenAttached: string[] = [];
    w.fault = (op) => {
      if (op === "attach") whenAttached = w.guest("vm1").ranks.map((r) => r.report.state);
    };
    expect((await (await controllerOf(w)).abort()).outcome).toBe("rolled-back");
    expect(whenAttached).toEqual(["running", "running"]);
    expect([...new Set(w.guest("vm1").wants.map((x) => `${x.phase} ${x.step}`))]).toEqual([
      "run-tcp 3",
      "run-openib 4",
    ]);
    expectWell(w, "vm1", "h1");
  });

  it("whose ranks were held lets them go at the destination", async () => {
    const w = world({ strategy: "live" });
    killedHolding(w, toPreCopy);
    Object.assign(w.processes.get("vm1@h1") ?? {}, { status: "postmigrate", moved: true });
    Object.assign(w.processes.get("vm1@h3") ?? {}, { status: "paused" });
    expect((await (await controllerOf(w)).abort()).outcome).toBe("done");
    expectWell(w, "vm1", "h3");
  });

  it("with the VM running at the destination is finished there", async () => {
    const w = world({ strategy: "live" });
    killedLive(w, [...toPreCopy, "switch-over"], moving);
    Object.assign(w.processes.get("vm1@h1") ?? {}, { status: "postmigrate", moved: true });
    Object.assign(w.processes.get("vm1@h3") ?? {}, { status: "running" });
    expect((await (await controllerOf(w)).abort()).outcome).toBe("done");
    expectWell(w, "vm1", "h3");
    expectSameMovers(w);
  });
});

describe("an interrupted cycle", () => {
  it("is refused by acting verbs and shown by status", async () => {
    const w = world();
    killedIn(w, toPreCopy);
    const controller = await controllerOf(w);
    await expect(controller.migrate({ vm: "vm2", to: "h3" })).rejects.toMatchObject({
      exit: "refused",
      message: expect.stringContaining("cycle 12 (migrate vm1 to h3) was interrupted"),
      hint: "run `symvirt abort`",
    });
    expect((await controller.status()).interrupted).toMatchObject({ cycle: 12, phase: "pre-copy" });
  });

  it.each([["prepare"], ["drain"], ["wait"], ["detach"], ["pre-copy"]])(
    "in %s with the VM on the source is rolled back there",
    async (last) => {
      const w = world();
      killedIn(w, toPreCopy.slice(0, toPreCopy.indexOf(last) + 1));
      const outcome = await (await controllerOf(w)).abort();
      expect(outcome).toMatchObject({ outcome: "rolled-back", report: { verb: "abort", cycle: 12 } });
      expectWell(w, "vm1", "h1");
      expect(w.processes.has("vm1@h3")).toBe(false);
      expect((await (await controllerOf(w)).migrate({ vm: "vm1", to: "h3" })).cycle).toBe(13);
    },
  );

  it("with the VM moved but not resumed is finished at the destination", async () => {
    const w = world();
    killedIn(w, toPreCopy);
    Object.assign(w.processes.get("vm1@h1") ?? {}, { status: "postmigrate", moved: true });
    Object.assign(w.processes.get("vm1@h3") ?? {}, { status: "paused" });
    const outcome = await (await controllerOf(w)).abort();
    expect(outcome.outcome).toBe("done");
    expectWell(w, "vm1", "h3");
    expect(w.processes.has("vm1@h1")).toBe(false);
  });

  it("with the VM running at the destination is finished there", async () => {
    const w = world();
    killedIn(w, [...toPreCopy, "switch-over"]);
    Object.assign(w.processes.get("vm1@h1") ?? {}, { status: "postmigrate", moved: true });
    Object.assign(w.processes.get("vm1@h3") ?? {}, { status: "running" });
    const outcome = await (await controllerOf(w)).abort();
    expect(outcome.outcome).toBe("done");
    expectWell(w, "vm1", "h3");
  });

  it("with the destination dead before its resume is taken back to the source", async () => {
    const w = world();
    killedIn(w, toPreCopy);
    Object.assign(w.processes.get("vm1@h1") ?? {}, { status: "postmigrate", moved: true });
    w.processes.delete("vm1@h3");
    const outcome = await (await controllerOf(w)).abort();
    expect(outcome.outcome).toBe("rolled-back");
    expectWell(w, "vm1", "h1");
  });

  it("whose source is silent is left as it is: silence is no proof that its process has ended", async () => {
    const w = world();
    killedIn(w, toPreCopy);
    w.processes.delete("vm1@h3");
    w.fault = (op, where) => {
      if (op === "inspect" && where === "vm1@h1")
        throw new SymvirtError("unreachable", "QMP does not answer");
    };
    await expect((await controllerOf(w)).abort()).rejects.toMatchObject({
      exit: "unreachable",
      message: "vm1 on h1 does not answer, and its process is there (pid 4711): QMP does not answer",
    });
    w.fault = (op, where) => {
      if ((op === "inspect" || op === "findProcesses") && where === "vm1@h1")
        throw new SymvirtError("unreachable", "host h1 does not answer");
    };
    await expect((await controllerOf(w)).abort()).rejects.toMatchObject({ exit: "unreachable" });
    expect(new Journal(w.cluster.state).interrupted()).toBeDefined();
    w.fault = () => undefined;
    expect((await (await controllerOf(w)).abort()).outcome).toBe("rolled-back");
    expectWell(w, "vm1", "h1");
  });

  it("whose destination is out of reach is rolled back where the VM runs", async () => {
    const w = world();
    killedIn(w, toPreCopy);
    w.fault = (op, where) => {
      if (where.endsWith("@h3") && ["inspect", "findProcesses", "end"].includes(op))
        throw new SymvirtError("unreachable", "host h3 does not run a command (status 255)");
    };
    const { outcome, message } = await (await controllerOf(w)).abort();
    expect([outcome, message]).toEqual(["rolled-back", expect.stringContaining("host h3 does not run")]);
    expectWell(w, "vm1", "h1");
  });

  it("whose destination has taken the VM along needs --gone to be given up", async () => {
    const w = world();
    killedIn(w, toPreCopy);
    Object.assign(w.processes.get("vm1@h1") ?? {}, { status: "postmigrate", moved: true });
    w.fault = (op, where) => {
      if (where.endsWith("@h3") && ["inspect", "findProcesses", "end"].includes(op))
        throw new SymvirtError("unreachable", "host h3 does not run a command (status 255)");
    };
    const controller = await controllerOf(w);
    await expect(controller.abort()).rejects.toMatchObject({ exit: "unreachable" });
    expect((await controller.abort({ gone: ["h3"] })).outcome).toBe("rolled-back");
    expectWell(w, "vm1", "h1");
  });

  it("that had ended the destination before it was killed goes on at the source", async () => {
    const w = world();
    killedIn(w, [...toPreCopy, "switch-over", "undo:end-destination"]);
    Object.assign(w.processes.get("vm1@h1") ?? {}, { status: "postmigrate", moved: true });
    w.processes.delete("vm1@h3");
    expect((await (await controllerOf(w)).abort()).outcome).toBe("rolled-back");
    expectWell(w, "vm1", "h1");
  });

  it("whose VM may have run at a destination that has ended is not taken back", async () => {
    const w = world();
    killedIn(w, [...toPreCopy, "switch-over"]);
    Object.assign(w.processes.get("vm1@h1") ?? {}, { status: "postmigrate", moved: true });
    w.processes.delete("vm1@h3");
    await expect((await controllerOf(w)).abort()).rejects.toMatchObject({ exit: "needsOperator" });
    expect(w.processes.get("vm1@h1")?.status).toBe("postmigrate");
  });

  it("with the VM running nowhere needs a person", async () => {
    const w = world();
    killedIn(w, toPreCopy);
    w.processes.delete("vm1@h1");
    w.processes.delete("vm1@h3");
    await expect((await controllerOf(w)).abort()).rejects.toMatchObject({
      exit: "needsOperator",
      message: expect.stringContaining("runs neither on h1 nor on h3"),
    });
  });
});
