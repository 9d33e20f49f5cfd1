/** The script API's single steps, as in the paper: wait, detach, migrate, attach, signal. */
import { describe, expect, it } from "vitest";
import { SymvirtError } from "../../src/errors.js";
import { controllerOf, expectWell, world } from "../support/controller-world.js";

describe("script API", () => {
  it("holds all ranks, moves a VM, and lets them go", async () => {
    const w = world();
    const controller = await controllerOf(w);
    await controller.waitAll();
    expect([...w.guests.values()].flatMap((g) => g.ranks.map((r) => r.report.state))).toEqual(
      Array(4).fill("parked"),
    );
    await controller.detach({ tag: "hca0" });
    await controller.migrate({ vm: "vm1", to: "h3" });
    await controller.attach({ tag: "hca0", device: "card0" });
    await controller.signal();
    expectWell(w, "vm1", "h3");
    // The lock is free again, and nothing is left over.
    expect((await controller.migrate({ vm: "vm1", to: "h1" })).outcome).toBe("done");
    await controller.close();
  });

  it("steps out of order, unknown tags and a second hold are refused", async () => {
    const w = world();
    const controller = await controllerOf(w);
    await expect(controller.detach({ tag: "hca0" })).rejects.toMatchObject({ exit: "usage" });
    await controller.waitAll();
    await expect(controller.waitAll()).rejects.toMatchObject({ exit: "usage" });
    await expect(controller.detach({ tag: "hca9" })).rejects.toThrow('no VM has a card slot "hca9"');
    await expect((await controllerOf(w)).migrate({ vm: "vm1", to: "h3" })).rejects.toMatchObject({
      exit: "refused",
    });
    await controller.signal();
    expectWell(w, "vm1", "h1");
  });

  it("a signal that is aborted after the hold has ended opens no connection again", async () => {
    const w = world();
    const controller = await controllerOf(w);
    const stop = new AbortController();
    await controller.waitAll(stop.signal);
    await controller.signal(stop.signal);
    let opened = 0;
    w.fault = (op) => void (opened += op === "openChannel" ? 1 : 0);
    stop.abort();
    // QEMU serves one client a channel at a time: a further link would leave this one without an answer.
    const { vms } = await controller.status();
    expect(vms.map((v) => v.agent.answers)).toEqual([true, true]);
    expect(opened).toBe(vms.length);
    expectWell(w, "vm1", "h1");
  });

  it.each(["on its way", "arrived", "resumed"] as const)(
    "a script that ends with a VM %s: abort ends the move and lets the ranks go",
    async (how) => {
      const w = world({ deadlines: { migrate: 500, attach: 500, prepare: 500 } });
      const controller = await controllerOf(w);
      await controller.waitAll();
      await controller.detach({ tag: "hca0" });
      const dead = new Promise<never>(() => undefined);
      const last = { "on its way": "migrate", arrived: "resume", resumed: "quit" }[how];
      let reached = (): void => undefined;
      const there = new Promise<void>((resolve) => (reached = resolve));
      w.fault = (op) => {
        if (op !== last) return undefined;
        reached();
        return dead;
      };
      void controller.migrate({ vm: "vm1", to: "h3" }).catch(() => undefined);
      await there;
      await controller.close();
      w.fault = () => undefined;
      expect((await (await controllerOf(w)).abort()).outcome).not.toBe("needs-operator");
      const host = how === "on its way" ? "h1" : "h3";
      expect(w.runsOn("vm1")).toBe(host);
      expect([...w.processes.keys()].sort()).toEqual([`vm1@${host}`, "vm2@h2"].sort());
      for (const guest of w.guests.values()) expect(guest.violations).toEqual([]);
    },
  );

  it("a move whose VM does not go on where it arrived leaves it on its source", async () => {
    const w = world();
    const controller = await controllerOf(w);
    await controller.waitAll();
    await controller.detach({ tag: "hca0" });
    w.fault = (op, where) => {
      if (op === "resume" && where === "vm1@h3") throw new SymvirtError("refused", "the image is locked");
    };
    await expect(controller.migrate({ vm: "vm1", to: "h3" })).rejects.toThrow("the image is locked");
    expect(w.runsOn("vm1")).toBe("h1");
    expect(w.processes.has("vm1@h3")).toBe(false);
    await controller.attach({ tag: "hca0", device: "card0" });
    await controller.signal();
    expectWell(w, "vm1", "h1");
  });

  it("a rank that is late ends the wait with the deadline, and abort lets the others go", async () => {
    const w = world({ deadlines: { park: 200 } });
    const [rank] = w.guest("vm2").ranks;
    if (rank !== undefined) rank.late = true;
    const controller = await controllerOf(w);
    await expect(controller.waitAll()).rejects.toMatchObject({ exit: "deadline" });
    if (rank !== undefined) rank.late = false;
    expect((await controller.abort()).outcome).toBe("rolled-back");
    expectWell(w, "vm1", "h1");
  });
});
