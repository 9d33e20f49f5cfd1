/** The controller's cycle over scripted guests and VMs: the undisturbed way. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { Phase } from "../../src/controller/cycle.js";
import { controllerOf, expectWell, world } from "../support/controller-world.js";

describe("migrate", () => {
  it("moves a VM with its card under a job of 2 VMs with 2 ranks each", async () => {
    const w = world();
    const controller = await controllerOf(w);
    const report = await controller.migrate({ vm: "vm1", to: "h3" });
    expect(report).toMatchObject({
      outcome: "done",
      cycle: 1,
      vm: "vm1",
      from: "h1",
      to: "h3",
      schemaVersion: 1,
    });
    expectWell(w, "vm1", "h3");
    expect(w.processes.has("vm1@h1")).toBe(false);
    expect(w.calls).toEqual([
      "launch vm1@h3",
      "listen vm1@h3",
      "detach vm1@h1",
      "migrate vm1@h1",
      "resume vm1@h3",
      "attach vm1@h3",
      "quit vm1@h1",
    ]);
    expect(report.ranks.map((r) => [r.rank, r.vm, r.before.epoch, r.after.epoch])).toEqual([
      [0, "vm1", 1, 2],
      [1, "vm1", 1, 2],
      [2, "vm2", 1, 2],
      [3, "vm2", 1, 2],
    ]);
    const phases = report.phases.filter((p) => p.vm === "vm1").map((p) => p.phase);
    expect(phases).toEqual([
      "prepare",
      "drain",
      "tear-down",
      "wait",
      "detach",
      "pre-copy",
      "downtime",
      "attach",
      "link-up",
      "re-init",
    ]);
    expect(report.phases.filter((p) => p.vm === "vm2").map((p) => p.phase)).toEqual([
      "drain",
      "tear-down",
      "re-init",
    ]);
    expect(report.preCopy?.transferredBytes).toBe(2 << 20);
    const placement = JSON.parse(readFileSync(join(w.cluster.state, "placement.json"), "utf8"));
    expect(placement.vms.vm1).toEqual({ host: "h3", cards: { hca0: "card0" } });
  });

  it("moves it again, and back to the first host", async () => {
    const w = world();
    const controller = await controllerOf(w);
    for (const [i, to] of ["h3", "h1", "h3"].entries()) {
      const report = await controller.migrate({ vm: "vm1", to });
      expect(report).toMatchObject({ outcome: "done", cycle: i + 1, to });
      expectWell(w, "vm1", to);
    }
  });

  it("moves a VM that has no job", async () => {
    const w = world({ ranksPerVm: 0 });
    const report = await (await controllerOf(w)).migrate({ vm: "vm1", to: "h3" });
    expect(report.outcome).toBe("done");
    expect(w.guest("vm1").wants).toEqual([]);
    expectWell(w, "vm1", "h3");
  });

  it("survives channels that break and agents that restart in every phase", async () => {
    const w = world();
    const controller = await controllerOf(w);
    const seen = new Set<Phase>();
    const report = await controller.migrate({
      vm: "vm1",
      to: "h3",
      onProgress: (_, { phase }) => {
        if (seen.has(phase)) return;
        seen.add(phase);
        w.guest("vm2").drop();
        if (phase === "re-init" || phase === "tear-down") w.guest("vm1").restart();
      },
    });
    expect(report).toMatchObject({ outcome: "done", message: expect.any(String) });
    expectWell(w, "vm1", "h3");
  });
});
