/** What the controller's integration tests share: fake clusters that are taken down, and short waits. */
import { afterEach, expect } from "vitest";
import { Controller } from "../../src/controller/script.js";
import { FakeCluster } from "./fake-cluster.js";

const worlds: FakeCluster[] = [];

export function world(options?: ConstructorParameters<typeof FakeCluster>[0]): FakeCluster {
  const made = new FakeCluster(options);
  worlds.push(made);
  return made;
}

afterEach(() => {
  for (const w of worlds.splice(0)) w.dispose();
});

/** Deadlines for work that starts real processes, on a machine that may be busy. */
export const calm = {
  ...{ hello: 30_000, prepare: 30_000, park: 30_000, detach: 30_000, migrate: 60_000 },
  ...{ attach: 30_000, linkUp: 30_000, resume: 30_000 },
};

export const timing = { helloEveryMs: 40, silenceMs: 400, redialMs: 10 };

/** @param settleMs how long work may take to stop after it was told to; real processes need more */
export function controllerOf(w: FakeCluster, settleMs = 500): Promise<Controller> {
  return Controller.open(w.cluster, { vmm: w, timing, settleMs });
}

/** Every VM has its card, every rank that lives runs over openib, and the VM is where it should be. */
export function expectWell(w: FakeCluster, vm: string, host: string): void {
  expect(w.runsOn(vm)).toBe(host);
  for (const guest of w.guests.values()) expect(guest.violations).toEqual([]);
  for (const name of w.guests.keys()) expect(w.cardsOf(name)).toEqual(["hca0"]);
  for (const guest of w.guests.values())
    for (const { report, torn } of guest.ranks) {
      if (report.state === "lost" || report.state === "left") continue;
      expect({ rank: report.rank, state: report.state, route: report.route, torn }).toEqual({
        rank: report.rank,
        state: "running",
        route: "openib",
        torn: false,
      });
    }
}
