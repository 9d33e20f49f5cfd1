import { describe, expect, it } from "vitest";
import type { RankReport } from "../protocol/messages.js";
import { changesRoutes, isAway, moversOf, whyWhole } from "./movers.js";
import type { RosterJob } from "./roster.js";

const none = { sentFragments: 0, receivedFragments: 0, sentBytes: 0, receivedBytes: 0 };

/** Three VMs of two ranks each; the ranks of the VMs named are away. */
function job(away: readonly string[], change: Partial<RankReport> = {}): RosterJob {
  const ranks = Array.from({ length: 6 }, (_, rank) => {
    const vm = `vm${1 + Math.floor(rank / 2)}`;
    const report: RankReport = {
      ...{ rank, pid: rank + 1, state: "running", epoch: 1, cycle: 0, step: 0, error: 0, detail: "" },
      ...{ tcpOnly: false, openDescriptors: 0, registrations: 0, windows: 0, wholeOnly: false },
      timings: { late: 0, drain: 0, teardown: 0, held: 0, load: 0, connect: 0 },
      ...{ route: away.includes(vm) ? "tcp" : "openib", openib: none, tcp: none },
      ...(rank === 3 ? change : {}),
    };
    return [rank, { vm, report }] as const;
  });
  return { job: "j", worldSize: 6, uid: 1, ranks: new Map(ranks) };
}

describe("moversOf", () => {
  const windows = { windows: 2 };
  const wholeOnly = { wholeOnly: true };
  const all = ["vm1", "vm2", "vm3"];
  it.each<[string, string[], Partial<RankReport>, number[] | undefined]>([
    // what, VMs away, rank 3, movers (undefined: all)
    ["a leave", [], {}, [0, 1]],
    ["a leave with windows", [], windows, undefined],
    ["a leave of a whole-only job", [], wholeOnly, undefined],
    ["a way back", ["vm1"], {}, [0, 1]],
    ["a way back while others are away too", ["vm1", "vm3"], {}, [0, 1, 4, 5]],
    ["a way back with windows", ["vm1"], windows, [0, 1]],
    ["a way back of a job that is away as a whole", all, {}, undefined],
  ])("of %s", (_, away, change, movers) => {
    expect(moversOf("vm1", job(away, change))).toEqual(movers);
  });

  it("are all if all ranks of the job are on the VM", () => {
    const whole = job([]);
    for (const rank of whole.ranks.values()) rank.vm = "vm1";
    expect(moversOf("vm1", whole)).toBeUndefined();
  });
});

it("says why a job changes as a whole", () => {
  expect(whyWhole(job([]))).toBeUndefined();
  expect(whyWhole(job([], { windows: 2 }))).toMatch(/^rank 3 of job j has 2 one-sided windows, and atomics/);
  expect(whyWhole(job([], { wholeOnly: true }))).toMatch(/^rank 3 of job j cannot tell/);
});

it("takes a rank for away only if it runs over tcp and could use a card", () => {
  const report = { route: "tcp", state: "running", tcpOnly: false } as const;
  expect(isAway(report)).toBe(true);
  expect(isAway({ ...report, state: "failed" })).toBe(true);
  expect(isAway({ ...report, tcpOnly: true })).toBe(false);
  expect(isAway({ ...report, route: "openib" })).toBe(false);
  expect(isAway({ ...report, state: "draining" })).toBe(false);
});

it("changes the routes of the ranks named, or of all", () => {
  expect([0, 1, 2].map((rank) => changesRoutes({ moving: [1] }, rank))).toEqual([false, true, false]);
  expect(changesRoutes({}, 3)).toBe(true);
});
