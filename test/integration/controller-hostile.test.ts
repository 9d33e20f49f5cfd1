/** Guests that send garbage, lie, or do not answer: they may hurt only themselves. */
import { describe, expect, it } from "vitest";
import { MAX_LINE_BYTES } from "../../src/protocol/messages.js";
import { controllerOf, expectWell, world } from "../support/controller-world.js";

describe("a guest that misbehaves", () => {
  it("garbage, a 10 MB line and lines of another session in the middle of a cycle change nothing", async () => {
    const w = world();
    let told = false;
    const report = await (
      await controllerOf(w)
    ).migrate({
      vm: "vm1",
      to: "h3",
      onProgress: (_, { phase }) => {
        if (told || phase !== "detach") return;
        told = true;
        const guest = w.guest("vm2");
        guest.raw("not json at all\n{}\n[1,2\n");
        guest.raw(`${"x".repeat(10 * 1024 * 1024)}\n`);
        guest.raw(Buffer.from([0xc3, 0x28, 0x0a, 0x00, 0x0a]));
        guest.raw(`${JSON.stringify({ type: "hello", v: 1, session: "f".repeat(32) })}\n`);
        guest.raw(`${"[".repeat(5000)}${"]".repeat(5000)}\n`);
        guest.tell();
      },
    });
    expect(report.outcome).toBe("done");
    expectWell(w, "vm1", "h3");
  });

  it("pictures of peers that nobody asked for, or that are too many, change nothing", async () => {
    const w = world({ strategy: "live" });
    const none = { fragments: 0, bytes: 0 };
    const peers = [{ rank: 0, route: "tcp", epoch: 1, openib: none, tcp: none }];
    const line = (change: object) => {
      const { session } = w.guest("vm2");
      const part = { type: "peers", session, answer: 1, job: "job.1", rank: 2, first: 0, total: 1, peers };
      return `${JSON.stringify({ ...part, ...change })}\n`;
    };
    let told = false;
    const report = await (
      await controllerOf(w)
    ).migrate({
      vm: "vm1",
      to: "h3",
      onProgress: (_, { phase }) => {
        if (told || phase !== "detach") return;
        told = true;
        for (let rank = 0; rank < 200; rank++) w.guest("vm2").raw(line({ rank, answer: rank % 3 }));
        for (const bad of [
          { total: 9999 },
          { first: -1 },
          { peers: Array(683).fill(peers[0]) },
          { peers: 1 },
        ])
          w.guest("vm2").raw(line(bad));
      },
    });
    expect(report.outcome).toBe("done");
    expectWell(w, "vm1", "h3");
  });

  it("three lines over the cap quarantine the channel by name, and the job is rolled back", async () => {
    const w = world();
    let told = false;
    const report = await (
      await controllerOf(w)
    ).migrate({
      vm: "vm1",
      to: "h3",
      onProgress: (_, { phase }) => {
        if (told || phase !== "detach") return;
        told = true;
        for (let i = 0; i < 3; i++) w.guest("vm2").raw(`${"x".repeat(MAX_LINE_BYTES + 1)}\n`);
      },
    });
    // It may be met before or after the switch-over; either way the job runs at the source again.
    expect(report.outcome).toBe("rolled-back");
    expect(report.message).toContain("the channel of vm2 is quarantined: 3 lines over 262144 bytes");
    expectWell(w, "vm1", "h1");
  });

  it("a rank that another VM claims: the plan refuses and names it", async () => {
    const w = world();
    w.guest("vm2").addRank("job.1", 4, 0);
    const error = await (await controllerOf(w)).migrate({ vm: "vm1", to: "h3" }).catch((e: unknown) => e);
    expect(error).toMatchObject({ exit: "refused" });
    expect(String(error)).toMatch(/vm[12] claims rank [0-3] of job job\.1, which belongs to vm[12]/);
    expect(w.calls).toEqual([]);
  });

  it("a lie in the middle of a cycle is not heard", async () => {
    const w = world();
    let told = false;
    const report = await (
      await controllerOf(w)
    ).migrate({
      vm: "vm1",
      to: "h3",
      onProgress: (_, { phase }) => {
        if (told || phase !== "pre-copy") return;
        told = true;
        const liar = w.guest("vm2").addRank("job.1", 4, 0);
        w.guest("vm2").set(liar, { state: "lost" });
        w.guest("vm2").ranks.pop();
      },
    });
    expect(report.outcome).toBe("done");
    expectWell(w, "vm1", "h3");
  });
});

describe("the plan refuses", () => {
  it("tells every reason at once", async () => {
    const w = world({ deadlines: { hello: 200 } });
    const [rank] = w.guest("vm1").ranks;
    if (rank !== undefined) w.guest("vm1").set(rank, { state: "inert", detail: "pml is ucx" });
    w.blockers = ["nvme does not support migration"];
    w.guest("vm1").holders = [{ pid: 5, command: "ib_write_bw", what: "/dev/infiniband/uverbs0" }];
    const error = await (await controllerOf(w)).migrate({ vm: "vm1", to: "h2" }).catch((e: unknown) => e);
    expect(error).toMatchObject({ exit: "refused" });
    const text = String(error);
    expect(text).toContain("h2 has no free card for hca0 of vm1 (card0 is that of vm2)");
    expect(text).toContain("pml is ucx");
    expect(text).toContain("nvme does not support migration");
    expect(text).toContain("pid 5 (ib_write_bw)");
    expect(w.calls).toEqual([]);
  });

  it.each([
    ["vmx", "h3", "usage", 'there is no VM "vmx", did you mean "vm1"?'],
    ["vm1", "h9", "usage", 'there is no host "h9", did you mean "h1"?'],
    ["vm1", "h1", "refused", "vm1 is on h1 already"],
  ])("%s to %s", async (vm, to, exit, text) => {
    const error = await (await controllerOf(world())).migrate({ vm, to }).catch((e: unknown) => e);
    expect(error).toMatchObject({ exit, message: expect.stringContaining(text) });
  });

  it("a job with ranks outside the managed VMs", async () => {
    const w = world();
    for (const guest of w.guests.values()) for (const rank of guest.ranks) rank.worldSize = 6;
    const error = await (await controllerOf(w)).migrate({ vm: "vm1", to: "h3" }).catch((e: unknown) => e);
    expect(error).toMatchObject({ exit: "refused" });
    expect(String(error)).toContain("has 6 ranks, but only 4 of them (0, 1, 2, 3) are reported");
  });

  it("the agent of the VM is missing: unreachable (exit 7)", async () => {
    const w = world({ deadlines: { hello: 200 }, ranksPerVm: 0 });
    w.guest("vm1").mute = true;
    const error = await (await controllerOf(w)).migrate({ vm: "vm1", to: "h3" }).catch((e: unknown) => e);
    expect(error).toMatchObject({ exit: "unreachable", exitCode: 7 });
    expect(String(error)).toContain("the agent of vm1 does not answer: no answer to hello");
  });

  it("the VMM of the VM is gone: unreachable (exit 7)", async () => {
    const w = world({ ranksPerVm: 0 });
    w.processes.delete("vm1@h1");
    const error = await (await controllerOf(w)).migrate({ vm: "vm1", to: "h3" }).catch((e: unknown) => e);
    expect(error).toMatchObject({ exit: "unreachable", exitCode: 7 });
  });

  it("status shows a silent VM as such and all the others", async () => {
    const w = world({ vms: 3, deadlines: { hello: 200 } });
    w.guest("vm2").mute = true;
    w.processes.delete("vm3@h3");
    const status = await (await controllerOf(w)).status();
    expect(status.vms.map((v) => [v.vm, v.status, v.agent.answers])).toEqual([
      ["vm1", "running", true],
      ["vm2", "running", false],
      ["vm3", "unknown", false],
    ]);
    expect(status.vms[1]?.trouble).toContain("no answer to hello");
    expect(status.vms[2]?.trouble).toContain("QMP of vm3 on h3 does not answer");
  });
});
