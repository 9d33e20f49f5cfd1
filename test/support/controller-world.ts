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

export const timing = { helloEveryMs: 40, silenceMs: 400, redialMs: 10 };

export function controllerOf(w: FakeCluster): Promise<Controller> {
  return Controller.open(w.cluster, { vmm: w, timing, settleMs: 500 });
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
