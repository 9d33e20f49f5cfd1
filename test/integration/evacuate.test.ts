/** Evacuations over scripted guests and VMs: which VM goes where, in which order, and what a failure leaves. */
import { describe, expect, it } from "vitest";
import { Journal } from "../../src/controller/state/journal.js";
import { SymvirtError } from "../../src/errors.js";
import { controllerOf, expectWell, world } from "../support/controller-world.js";
import { hang } from "../support/fake-cluster.js";

/** Two VMs of one job on h1; h2 and h3 could take both. */
const crowded = () => world({ homes: ["h1", "h1"], cardsPerHost: 2 });

async function refusalOf(work: Promise<unknown>): Promise<SymvirtError> {
  const error = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (error instanceof SymvirtError) return error;
  throw new Error(`no refusal, but ${String(error)}`);
}

describe("evacuate", () => {
  it("moves every VM of the host, one cycle after the other", async () => {
    const w = crowded();
    w.memory.set("h2", 2 ** 30);
    w.memory.set("h3", 1.5 * 2 ** 30);
    const report = await (await controllerOf(w)).evacuate({ host: "h1" });
    expect(report).toMatchObject({ outcome: "done", verb: "evacuate", host: "h1", schemaVersion: 1 });
    expect(report.message).toBe("h1 is empty: vm1 to h3, vm2 to h2");
    expect(report.moves.map((m) => [m.vm, m.to, m.state, m.report?.cycle])).toEqual([
      ["vm1", "h3", "moved", 1],
      ["vm2", "h2", "moved", 2],
    ]);
    expectWell(w, "vm1", "h3");
    expectWell(w, "vm2", "h2");
    const kinds = new Journal(w.cluster.state).read().map((r) => r.kind);
    expect(kinds.filter((k) => k === "begin" || k === "end")).toEqual(["begin", "end", "begin", "end"]);
  });

  it("takes both to one host that has two cards, and keeps to the hosts it is given", async () => {
    const w = crowded();
    const report = await (await controllerOf(w)).evacuate({ host: "h1", to: ["h2"] });
    expect(report.moves.map((m) => m.to)).toEqual(["h2", "h2"]);
    expectWell(w, "vm1", "h2");
    expectWell(w, "vm2", "h2");
  });

  it("of a host without VMs has nothing to do", async () => {
    const w = world();
    expect(await (await controllerOf(w)).evacuate({ host: "h3" })).toMatchObject({
      outcome: "done",
      message: "h3 has no VM",
      moves: [],
    });
    expect(w.calls).toEqual([]);
  });

  it("leaves VMs of other hosts alone, and their cards", async () => {
    const w = world();
    const report = await (await controllerOf(w)).evacuate({ host: "h1" });
    expect(report.message).toBe("h1 is empty: vm1 to h3");
    expectWell(w, "vm2", "h2");
  });

  it("plans without touching anything", async () => {
    const w = crowded();
    const plan = await (await controllerOf(w)).planEvacuation({ host: "h1", to: ["h3", "h2"] });
    expect(plan.moves).toEqual([
      { vm: "vm1", from: "h1", to: "h3" },
      { vm: "vm2", from: "h1", to: "h3" },
    ]);
    expect(plan.findings.filter((f) => f.level !== "note")).toEqual([]);
    expect(w.calls).toEqual([]);
  });

  it("refuses with every reason before anything is touched", async () => {
    const w = world();
    w.memory.set("h3", 2 ** 29);
    const refused = await refusalOf((await controllerOf(w)).evacuate({ host: "h1" }));
    expect(refused).toMatchObject({ exit: "refused" });
    expect(refused.message).toContain("h1 cannot be evacuated: vm1 has nowhere to go");
    expect(refused.message).toContain("h2 has no free e1000e card (free: none)");
    expect(refused.message).toContain("h3 has 512 MiB of memory free and vm1 needs 1024");
    expect(w.calls).toEqual([]);
  });

  it("refuses two VMs that fit only one at a time", async () => {
    const w = world({ homes: ["h1", "h1"], cardsPerHost: 2 });
    w.memory.set("h2", 0);
    w.memory.set("h3", 1.5 * 2 ** 30);
    const refused = await refusalOf((await controllerOf(w)).evacuate({ host: "h1" }));
    expect(refused.message).toContain("vm1, vm2 do not fit on the other hosts together");
    expect(w.calls).toEqual([]);
  });

  it("refuses what the single migration would refuse, by the VM's name", async () => {
    const w = crowded();
    w.blockers = ["device 0000:00:05.0/usb does not support migration"];
    const refused = await refusalOf((await controllerOf(w)).evacuate({ host: "h1" }));
    expect(refused.message).toContain("vm1 to h2: the VMM would not migrate vm1");
    expect(refused.message).toContain("vm2 to h3: the VMM would not migrate vm2");
    expect(w.calls).toEqual([]);
  });

  it("leaves out a host that does not answer, and says so", async () => {
    const w = crowded();
    w.fault = (op, where) => {
      if (op === "freeMemory" && where === "@h2") throw new SymvirtError("unreachable", "host h2 is silent");
    };
    const plan = await (await controllerOf(w)).planEvacuation({ host: "h1" });
    expect(plan.moves.map((m) => m.to)).toEqual(["h3", "h3"]);
    expect(plan.findings).toContainEqual({ level: "note", text: "host h2 is silent: no VM goes there" });
  });

  it("of names that are not there is wrong usage", async () => {
    const controller = await controllerOf(world());
    expect(await refusalOf(controller.evacuate({ host: "h9" }))).toMatchObject({ exit: "usage" });
    expect(await refusalOf(controller.evacuate({ host: "h1", to: ["h9"] }))).toMatchObject({ exit: "usage" });
    expect(await refusalOf(controller.evacuate({ host: "h1", to: ["h1"] }))).toMatchObject({ exit: "usage" });
  });

  it("stops at the first failure and says what is where", async () => {
    const w = crowded();
    w.fault = (op, where) => {
      if (op === "attach" && where === "vm2@h2") throw new SymvirtError("refused", "no such slot");
    };
    const report = await (await controllerOf(w)).evacuate({ host: "h1", to: ["h2"] });
    expect(report.outcome).toBe("stopped");
    expect(report.message).toContain("the evacuation of h1 stopped:");
    expect(report.message).toContain("(moved: vm1 to h2; vm2 did not move)");
    expect(report.moves.map((m) => m.state)).toEqual(["moved", "failed"]);
    expectWell(w, "vm1", "h2");
    expectWell(w, "vm2", "h1");
  });

  it("refused at the second VM, it stops with the first moved", async () => {
    const w = crowded();
    const moved = () => w.processes.get("vm1@h2")?.status === "running" && !w.processes.has("vm1@h1");
    w.fault = (op, where) => {
      if (op === "checkHost" && where === "vm2@h2" && moved())
        throw new SymvirtError("refused", "host h2 has no QEMU any more");
    };
    const report = await (await controllerOf(w)).evacuate({ host: "h1", to: ["h2"] });
    expect(report).toMatchObject({ outcome: "stopped" });
    expect(report.message).toContain("host h2 has no QEMU any more");
    expect(report.moves[1]).toMatchObject({ state: "failed", report: null });
    expectWell(w, "vm2", "h1");
  });

  it("aborted inside a cycle rolls that one back and begins no other", async () => {
    const w = crowded();
    const stop = new AbortController();
    const report = await (
      await controllerOf(w)
    ).evacuate({
      ...{ host: "h1", to: ["h2"], signal: stop.signal },
      onProgress: (_, { phase }) => {
        if (phase === "detach") stop.abort(new SymvirtError("interrupted", "interrupted by Ctrl-C"));
      },
    });
    expect(report).toMatchObject({ outcome: "stopped" });
    expect(report.moves.map((m) => [m.state, m.report?.outcome])).toEqual([
      ["failed", "rolled-back"],
      ["not begun", undefined],
    ]);
    expect(report.message).toContain("still on h1, untouched: vm2");
    expectWell(w, "vm1", "h1");
    expectWell(w, "vm2", "h1");
  });

  it("aborted between two cycles leaves the first where it is now", async () => {
    const w = crowded();
    const controller = await controllerOf(w);
    const stop = new AbortController();
    const report = await controller.evacuate({
      ...{ host: "h1", to: ["h2"], signal: stop.signal },
      onMove: (_, index) => {
        if (index === 1) stop.abort(new SymvirtError("interrupted", "interrupted by Ctrl-C"));
      },
    });
    expect(report.moves.map((m) => m.state)).toEqual(["moved", "not begun"]);
    expectWell(w, "vm1", "h2");
    expectWell(w, "vm2", "h1");
  });

  it("shows itself to `status` and ends by `symvirt abort`", async () => {
    const w = crowded();
    const controller = await controllerOf(w);
    let asked: Promise<unknown> | undefined;
    const seen: unknown[] = [];
    // However slow the others are, the cycle is still on.
    w.fault = (op, _, signal) => (op === "detach" ? hang(signal) : undefined);
    const report = await controller.evacuate({
      ...{ host: "h1", to: ["h2"] },
      onProgress: (_, { phase }) => {
        if (phase !== "drain" || asked !== undefined) return;
        asked = (async () => {
          const other = await controllerOf(w);
          seen.push((await other.status()).running);
          return await other.abort();
        })();
      },
    });
    expect(report.outcome).toBe("stopped");
    expect(seen).toMatchObject([{ cycle: 1, vm: "vm1" }]);
    expect(await asked).toMatchObject({ outcome: "rolled-back" });
    expectWell(w, "vm1", "h1");
  });

  it("moves a VM without its card first, so that the others of its job can follow", async () => {
    const w = world({ homes: ["h1", "h1"], cardsPerHost: 2, strategy: "live" });
    // vm2 loses its card: it goes to h3, which then offers none, and comes back over tcp.
    const h1 = w.cluster.hosts.h1;
    const controller = await controllerOf(w);
    const cards = h1?.cards ?? {};
    w.cluster.hosts.h3 = { ...(w.cluster.hosts.h3 ?? h1), cards: {} } as NonNullable<typeof h1>;
    expect((await controller.migrate({ vm: "vm2", to: "h3" })).outcome).toBe("done");
    w.cluster.hosts.h1 = { ...h1, cards: { card0: cards.card0 } } as NonNullable<typeof h1>;
    expect((await controller.migrate({ vm: "vm2", to: "h1" })).outcome).toBe("done");
    const report = await controller.evacuate({ host: "h1", to: ["h2"] });
    expect(report).toMatchObject({ outcome: "done" });
    expect(report.moves.map((m) => m.vm)).toEqual(["vm2", "vm1"]);
    expectWell(w, "vm1", "h2");
    expectWell(w, "vm2", "h2");
  });
});
