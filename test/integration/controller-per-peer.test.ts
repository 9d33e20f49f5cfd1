/** Only the routes to the moving VM change: three VMs with scripted guests, of which two keep openib. */
import { describe, expect, it } from "vitest";
import { statusLines } from "../../src/cli/status.js";
import { examine } from "../../src/controller/doctor.js";

import { Controller } from "../../src/controller/script.js";
import { Journal } from "../../src/controller/state/journal.js";
import { controllerOf, expectWell, timing, world } from "../support/controller-world.js";
import type { FakeCluster } from "../support/fake-cluster.js";
import type { FakeRank } from "../support/fake-guest.js";

const three = (options: ConstructorParameters<typeof FakeCluster>[0] = {}) =>
  world({ strategy: "live", vms: 3, ...options });
const ranksOf = (w: FakeCluster) => [...w.guests.values()].flatMap((g) => g.ranks);
const routes = (w: FakeCluster) => ranksOf(w).map((r) => `${r.report.state} ${r.report.route}`);
const epochs = (w: FakeCluster) => ranksOf(w).map((r) => r.report.epoch);
const wantsOf = (w: FakeCluster) => [...w.guests.values()].flatMap((g) => g.wants);
const rankOf = (w: FakeCluster, n: number): FakeRank => {
  const found = ranksOf(w).find((r) => r.report.rank === n);
  if (found === undefined) throw new Error(`no rank ${n}`);
  return found;
};
/** For each rank its peers over openib. */
const openibPeers = (w: FakeCluster) =>
  [...w.guests.values()].flatMap((g) => g.ranks.map((r) => g.overOpenib(r)));

const tcp = "running tcp";
const openib = "running openib";
/** Ranks 0 and 1 over tcp with everybody, the others over openib among themselves. */
const vm1Away = [tcp, tcp, openib, openib, openib, openib];
const amongOthers = [[], [], [3, 4, 5], [2, 4, 5], [2, 3, 5], [2, 3, 4]];

function expectNoViolation(w: FakeCluster): void {
  for (const guest of w.guests.values()) expect(guest.violations).toEqual([]);
}

/** vm1 goes to h4, which offers no card until `offer` is called. */
async function vm1ToBareHost(w: FakeCluster): Promise<{ controller: Controller; offer: () => void }> {
  const h4 = w.cluster.hosts.h4;
  if (h4 === undefined) throw new Error("no h4");
  const { cards } = h4;
  h4.cards = {};
  const controller = await controllerOf(w);
  const report = await controller.migrate({ vm: "vm1", to: "h4" });
  expect(report).toMatchObject({ outcome: "done", strategy: "live" });
  expect(report.message).toContain("its ranks over tcp with every peer");
  return { controller, offer: () => void (h4.cards = cards) };
}

describe("a line that is lost", () => {
  const opened = (w: FakeCluster) =>
    Controller.open(w.cluster, { vmm: w, timing: { ...timing, tellAgainMs: 50 }, settleMs: 500 });

  it.each(["flip", "quiet", "dropped", "blob", "handles", "ready", "back.drained"])(
    "under %s, to or from a guest, is told again",
    async (key) => {
      const w = three();
      w.guest("vm1").losesPosts.add(key);
      w.guest("vm3").losesParts.add(key);
      const report = await (await opened(w)).migrate({ vm: "vm1", to: "h4" });
      expect([report.outcome, report.message]).toEqual(["done", expect.any(String)]);
      expectNoViolation(w);
      expectWell(w, "vm1", "h4");
    },
  );
});

describe("a live migrate", () => {
  it("changes the routes to the moving VM only", async () => {
    const w = three();
    const during: { routes: string[]; peers: number[][] }[] = [];
    const controller = await controllerOf(w);
    const report = await controller.migrate({
      vm: "vm1",
      to: "h4",
      onProgress: (_, { phase }) => {
        if (phase === "pre-copy") during.push({ routes: routes(w), peers: openibPeers(w) });
      },
    });
    expect(report.outcome).toBe("done");
    expect(during[0]).toEqual({ routes: vm1Away, peers: amongOthers });
    expectWell(w, "vm1", "h4");
    expect(epochs(w)).toEqual([2, 2, 1, 1, 1, 1]);
    expect(report.ranks.map((r) => r.moved)).toEqual([true, true, false, false, false, false]);
    expect(openibPeers(w).map((p) => p.length)).toEqual(Array(6).fill(5));
    for (const want of wantsOf(w)) expect(want.moving).toEqual([0, 1]);
    const seen = (vm: string) => new Set(w.guest(vm).statesSeen);
    expect(seen("vm2")).toEqual(new Set(["running"]));
    expect(seen("vm3")).toEqual(new Set(["running"]));
  });

  it("is planned as such", async () => {
    const plan = await (await controllerOf(three())).plan({ vm: "vm2", to: "h4" });
    expect(plan.target?.jobs[0]?.moving).toEqual([2, 3]);
    expect(plan.steps).toContain(
      "let ranks 2, 3 of job job.1 on vm2 run on over tcp; the other ranks keep openib among themselves",
    );
    expect(plan.steps).toContain("let ranks 2, 3 run over openib again");
    expect(plan.findings).toEqual([]);
  });

  it("moves one VM after the other", async () => {
    const w = three();
    const controller = await controllerOf(w);
    for (const [vm, to] of [
      ["vm1", "h4"],
      ["vm2", "h1"],
      ["vm3", "h2"],
    ] as const) {
      expect((await controller.migrate({ vm, to })).outcome).toBe("done");
      expectWell(w, vm, to);
    }
    expect(epochs(w)).toEqual([2, 2, 2, 2, 2, 2]);
  });

  it("tells the same moving ranks after every reconnect, in every phase", async () => {
    const w = three();
    const seen = new Set<string>();
    const report = await (
      await controllerOf(w)
    ).migrate({
      vm: "vm1",
      to: "h4",
      onProgress: (_, { phase }) => {
        if (seen.has(phase)) return;
        seen.add(phase);
        w.guest("vm2").drop();
        w.guest("vm3").restart();
      },
    });
    expect(report.outcome).toBe("done");
    expectWell(w, "vm1", "h4");
    for (const want of wantsOf(w)) expect(want.moving).toEqual([0, 1]);
    expect(epochs(w)).toEqual([2, 2, 1, 1, 1, 1]);
  });

  it("does not wait for the card of a VM that stays, and waits for the staying rank's word", async () => {
    const w = three({ deadlines: { park: 300 } });
    rankOf(w, 4).late = true;
    const report = await (await controllerOf(w)).migrate({ vm: "vm1", to: "h4" });
    expect(report.outcome).toBe("rolled-back");
    expect(report.message).toContain("rank 4 on vm3 (pid 1004) is late");
    expectWell(w, "vm1", "h1");
    expect(epochs(w)).toEqual(Array(6).fill(1));
    for (const want of wantsOf(w)) expect(want.moving).toEqual([0, 1]);
  });

  it("aborted with the card away: the staying ranks keep theirs all the way back", async () => {
    const w = three();
    const abort = new AbortController();
    const report = await (
      await controllerOf(w)
    ).migrate({
      vm: "vm1",
      to: "h4",
      signal: abort.signal,
      onProgress: (_, { phase }) => {
        if (phase === "pre-copy") abort.abort(new Error("the operator said so"));
      },
    });
    expect(report.outcome).toBe("rolled-back");
    expectWell(w, "vm1", "h1");
    expect(epochs(w)).toEqual([2, 2, 1, 1, 1, 1]);
    for (const want of wantsOf(w)) expect(want.moving).toEqual([0, 1]);
  });

  it("records the moving ranks in the journal", async () => {
    const w = three();
    await (await controllerOf(w)).migrate({ vm: "vm3", to: "h4" });
    const [begin] = new Journal(w.cluster.state).read();
    expect(begin?.kind === "begin" && begin.target.jobs[0]?.moving).toEqual([4, 5]);
  });
});

describe("a VM away from the card", () => {
  it("is a steady state, and status says so", async () => {
    const w = three();
    const { controller } = await vm1ToBareHost(w);
    expect(routes(w)).toEqual(vm1Away);
    expect(openibPeers(w)).toEqual(amongOthers);
    const status = await controller.status();
    expect(status.jobs[0]?.away).toEqual([{ vm: "vm1", ranks: [0, 1] }]);
    expect(statusLines(status)).toContain(
      "ranks 0, 1 on vm1 run over tcp with every peer; the others keep openib among themselves; `symvirt recover vm1` brings openib back",
    );
  });

  it("keeps the other VMs of the job where they are, and says what to do first", async () => {
    const w = three();
    const { controller } = await vm1ToBareHost(w);
    await expect(controller.migrate({ vm: "vm2", to: "h1" })).rejects.toMatchObject({
      exit: "refused",
      message: expect.stringContaining(
        "rank 0 of job job.1 on vm1 runs over tcp while those on vm2 use the card",
      ),
      hint: expect.stringContaining("`symvirt recover vm1`"),
    });
    expect(routes(w)).toEqual(vm1Away);
    expectNoViolation(w);
  });

  it("comes back by recover, which leaves the others their epochs", async () => {
    const w = three();
    const { controller, offer } = await vm1ToBareHost(w);
    offer();
    await expect(controller.recover({ vm: "vm2" })).rejects.toMatchObject({
      exit: "refused",
      message: expect.stringContaining("the ranks on vm2 do not run over tcp"),
      hint: expect.stringContaining("`symvirt recover vm1`"),
    });
    const report = await controller.recover({ vm: "vm1" });
    expect(report).toMatchObject({ outcome: "done", message: "the ranks on vm1 run over openib again" });
    expectWell(w, "vm1", "h4");
    expect(epochs(w)).toEqual([2, 2, 1, 1, 1, 1]);
    expect(wantsOf(w).at(-1)).toMatchObject({ phase: "run-openib", moving: [0, 1], quietComplete: true });
    expect((await controller.status()).jobs[0]?.away).toEqual([]);
  });

  it("comes back by a further migrate to a host with a card", async () => {
    const w = three();
    const { controller } = await vm1ToBareHost(w);
    const report = await controller.migrate({ vm: "vm1", to: "h1" });
    expect(report.outcome).toBe("done");
    expect(report.phases.map((p) => p.phase)).not.toContain("drain");
    expectWell(w, "vm1", "h1");
    expect(epochs(w)).toEqual([2, 2, 1, 1, 1, 1]);
  });

  it("a recover that fails leaves everything as it was", async () => {
    const w = three();
    const { controller, offer } = await vm1ToBareHost(w);
    offer();
    rankOf(w, 1).failReinit = 2;
    const report = await controller.recover({ vm: "vm1" });
    expect(report.outcome).toBe("rolled-back");
    expect(report.message).toContain("the ranks on vm1 run over tcp as before");
    expect(ranksOf(w).map((r) => r.report.route)).toEqual(["tcp", "tcp", ...Array<string>(4).fill("openib")]);
    expect(openibPeers(w)).toEqual(amongOthers);
    expect(epochs(w).slice(2)).toEqual([1, 1, 1, 1]);
    expectNoViolation(w);
    expect((await controller.recover({ vm: "vm1" })).outcome).toBe("done");
    expectWell(w, "vm1", "h4");
  });

  it("park refuses it, and doctor says so if park is the cluster's strategy", async () => {
    const w = three();
    const { controller } = await vm1ToBareHost(w);
    const doctor = async () => {
      const options = { vmm: w, timing, vm: "vm2", signal: new AbortController().signal };
      const [diagnosis] = await examine(w.cluster, options);
      return diagnosis?.findings.filter((f) => f.level !== "note").map((f) => f.text);
    };
    expect(await doctor()).toEqual([expect.stringContaining("while those on vm2 use the card") as string]);
    w.cluster.limits.strategy = "park";
    expect(await doctor()).toEqual(
      [0, 1].map((n) => expect.stringContaining(`rank ${n} of job job.1`) as string),
    );
    await expect(controller.migrate({ vm: "vm2", to: "h1", strategy: "park" })).rejects.toMatchObject({
      exit: "refused",
      message: expect.stringContaining("runs over tcp, not over openib"),
    });
  });
});

describe("status with peers", () => {
  it("has each rank's picture of each peer, and shows them as pairs", async () => {
    const w = three();
    const { controller } = await vm1ToBareHost(w);
    const { jobs } = await controller.status(undefined, { peers: true });
    const pictures = jobs[0]?.ranks.map((r) => r.peers?.map((p) => `${p.rank} ${p.route} ${p.tcp.bytes}`));
    expect(pictures?.[0]).toEqual(["1 tcp 50", "2 tcp 50", "3 tcp 50", "4 tcp 50", "5 tcp 50"]);
    expect(pictures?.[5]).toEqual(["0 tcp 50", "1 tcp 50", "2 openib 0", "3 openib 0", "4 openib 0"]);
    const lines = statusLines(await controller.status(undefined, { peers: true }));
    expect(lines.filter((l) => /^5@vm3 +[01]@vm1 +tcp/.test(l))).toHaveLength(2);
    expect(lines.filter((l) => /^5@vm3 +[234]@vm[23] +openib/.test(l))).toHaveLength(3);
    expect((await controller.status()).jobs[0]?.ranks[0]).not.toHaveProperty("peers");
  });

  it("is answered by a running controller, too", async () => {
    const w = three();
    const controller = await controllerOf(w);
    let asked: Promise<(string[] | undefined)[] | undefined> | undefined;
    const report = await controller.migrate({
      vm: "vm1",
      to: "h4",
      onProgress: (_, { phase }) => {
        if (phase !== "pre-copy" || asked !== undefined) return;
        asked = controller
          .status(undefined, { peers: true })
          .then(({ jobs }) => jobs[0]?.ranks.map((r) => r.peers?.map((p) => p.route)));
      },
    });
    expect(report.outcome).toBe("done");
    const pictures = await asked;
    expect(pictures?.map((p) => p?.length)).toEqual(Array(6).fill(5));
  });

  it("shows a rank that does not tell as such, and hears no part for another VM's rank", async () => {
    const w = three();
    const [first] = w.guest("vm2").ranks;
    w.guest("vm3").tellsPeersFor = first;
    const { jobs } = await (await controllerOf(w)).status(undefined, { peers: true });
    const peersOf = (rank: number) => jobs[0]?.ranks.find((r) => r.rank === rank)?.peers;
    expect(peersOf(2)?.[0]?.openib.bytes).toBe(1000);
    expect(peersOf(4)).toBeNull();
  });
});
