import { describe, expect, it } from "vitest";
import type { CycleReport, RankSpan } from "../controller/report.js";
import { escapeText } from "./escape.js";
import type { TimelineInput } from "./input.js";
import { longestGap, longestPause, rateSpans } from "./job-rate.js";
import { timelinePage } from "./page.js";
import { rankBands } from "./rank-bands.js";
import { formatBytes, formatMs, linearScale, ticks } from "./scale.js";
import { timelineSvg, timeRange, vmsOf } from "./svg.js";

const traffic = { sentFragments: 10, receivedFragments: 10, sentBytes: 1e8, receivedBytes: 1e8 };
const idle = { sentFragments: 0, receivedFragments: 0, sentBytes: 0, receivedBytes: 0 };

function rank(n: number): RankSpan {
  return {
    rank: n,
    vm: n < 2 ? "vm1" : "vm2",
    timings: { late: 3000, drain: 9000, teardown: 30_000, held: 4_000_000, load: 60_000, connect: 54_000 },
    moved: true,
    before: { route: "openib", epoch: 1, openib: traffic, tcp: idle },
    after: { route: "openib", epoch: 2, openib: traffic, tcp: idle },
  };
}

function cycle(): CycleReport {
  return {
    schemaVersion: 1,
    cycle: 1,
    verb: "migrate",
    strategy: "park",
    outcome: "done",
    message: "",
    vm: "vm1",
    from: "h1",
    to: "h3",
    startedAt: "2026-11-22T22:00:00.000Z",
    totalMs: 6400,
    phases: [
      { vm: "vm2", phase: "drain", startMs: 1300, ms: 11 },
      { vm: "vm2", phase: "tear-down", startMs: 1311, ms: 34 },
      { vm: "vm2", phase: "wait", startMs: 1345, ms: 22 },
      { vm: "vm2", phase: "re-init", startMs: 6180, ms: 220 },
      { vm: "vm1", phase: "prepare", startMs: 0, ms: 1300 },
      { vm: "vm1", phase: "drain", startMs: 1300, ms: 14 },
      { vm: "vm1", phase: "tear-down", startMs: 1314, ms: 35 },
      { vm: "vm1", phase: "wait", startMs: 1349, ms: 18 },
      { vm: "vm1", phase: "detach", startMs: 1367, ms: 260 },
      { vm: "vm1", phase: "pre-copy", startMs: 1627, ms: 1240 },
      { vm: "vm1", phase: "downtime", startMs: 2867, ms: 163 },
      { vm: "vm1", phase: "attach", startMs: 3030, ms: 410 },
      { vm: "vm1", phase: "link-up", startMs: 3440, ms: 2740 },
      { vm: "vm1", phase: "re-init", startMs: 6180, ms: 214 },
    ],
    ranks: [0, 1, 2, 3].map(rank),
    holds: [],
    preCopy: { transferredBytes: 304_000_000, downtimeMs: 163 },
  };
}

/** Openib until 1.3 s, nothing until 6.2 s, openib again: as in a cycle of strategy park. */
function counters() {
  const at = (ms: number, openib: number) => ({ ms, openib, tcp: 0 });
  const before = [-1500, -500, 500, 1300].map((ms) => at(ms, 1e8 + ms * 1000));
  const held = [2300, 3300, 4300, 5300, 6200].map((ms) => at(ms, 1e8 + 1.3e6));
  return [...before, ...held, at(7000, 1.02e8), at(7500, 1.025e8)];
}

function input(change: Partial<TimelineInput> = {}): TimelineInput {
  const before = Array.from({ length: 6 }, (_, i) => ({
    atMs: -1500 + i * 500,
    iteration: 400 + i * 200,
    gapMs: 6,
  }));
  const after = Array.from({ length: 4 }, (_, i) => ({
    atMs: 6900 + i * 500,
    iteration: 1930 + i * 190,
    gapMs: 9,
  }));
  return {
    cycle: cycle(),
    job: "stencil",
    samples: [...before, { atMs: 6396, iteration: 1525, gapMs: 5080 }, ...after],
    routes: [0, 1, 2, 3].map((n) => ({
      rank: n,
      vm: n < 2 ? "vm1" : "vm2",
      before: { openib: 2e8, tcp: 0 },
      during: { openib: 12_000, tcp: 0 },
      after: { openib: 1.4e8, tcp: 0 },
    })),
    bands: [0, 1, 2, 3].map((n) => ({ rank: n, vm: n < 2 ? "vm1" : "vm2", samples: counters() })),
    figures: [
      { label: "Longest gap of the job", value: "5.08 s" },
      { label: "Checksum", value: "9f3a1c0de4b7a251" },
    ],
    ...change,
  };
}

describe("escapeText", () => {
  it("leaves nothing that ends a tag, an attribute or a text", () => {
    expect(escapeText(`<b a="1" c='2'>&\u0000`)).toBe("&lt;b a=&quot;1&quot; c=&#39;2&#39;&gt;&amp;\ufffd");
  });
});

describe("scale", () => {
  it("maps linearly and clamps", () => {
    const scale = linearScale(-100, 900, 150, 1150);
    expect([-100, 400, 900, 5000, -5000].map((ms) => scale.x(ms))).toEqual([150, 650, 1150, 1150, 150]);
  });

  it("survives an empty range", () => {
    expect(linearScale(5, 5, 0, 100).x(5)).toBe(0);
    expect(ticks(5, 5, 10)).toEqual([5]);
  });

  it("gives round ticks", () => {
    expect(ticks(-700, 7100, 10)).toEqual([0, 1000, 2000, 3000, 4000, 5000, 6000, 7000]);
    expect(ticks(0, 90, 10)).toEqual([0, 10, 20, 30, 40, 50, 60, 70, 80, 90]);
  });

  it("formats for people", () => {
    expect([0, 0.43, 9.51, 12.4, 999.4, 999.6, 12_345, 125_000].map(formatMs)).toEqual([
      ...["0 ms", "430 µs", "9.5 ms", "12 ms", "999 ms", "1.00 s", "12.3 s", "2 min 5 s"],
    ]);
    expect([0, 812, 13_060, 304_000_000].map(formatBytes)).toEqual(["0", "812 B", "13.1 kB", "304 MB"]);
  });
});

describe("rankBands", () => {
  it("covers the range without holes and shows the hold", () => {
    const bands = rankBands(cycle(), rank(0), -500, 7000);
    expect(bands.map((b) => b.band)).toEqual(["openib", "drain", "held", "re-init", "openib"]);
    expect(bands[0]?.fromMs).toBe(-500);
    expect(bands.at(-1)?.toMs).toBe(7000);
    bands.slice(1).forEach((b, i) => {
      expect(b.fromMs).toBe(bands[i]?.toMs);
    });
    expect(bands[1]?.fromMs).toBe(1303);
    // 1300 + 3 late, 39 drain and tear-down, 4000 held, 163 downtime of its VM, 114 re-init
    expect(bands[3]).toEqual({ band: "re-init", fromMs: 5505, toMs: 5619 });
    expect(rankBands(cycle(), rank(2), -500, 7000)[3]).toEqual({ band: "re-init", fromMs: 5342, toMs: 5456 });
  });

  it("shows tcp between two times of openib under strategy live, and no hold", () => {
    const timings = { late: 3000, drain: 9000, teardown: 30_000, held: 0, load: 60_000, connect: 54_000 };
    expect(rankBands({ ...cycle(), strategy: "live" }, { ...rank(0), timings }, 0, 7000)).toEqual([
      { band: "openib", fromMs: 0, toMs: 1303 },
      { band: "tcp", fromMs: 1303, toMs: 6394 },
      { band: "openib", fromMs: 6394, toMs: 7000 },
    ]);
  });

  it("shows openib all the time for a rank that kept it, under strategy live", () => {
    const stayed = { ...rank(2), moved: false, timings: { ...rank(2).timings, held: 0 } };
    expect(rankBands({ ...cycle(), strategy: "live" }, stayed, 0, 7000)).toEqual([
      { band: "openib", fromMs: 0, toMs: 7000 },
    ]);
  });

  it("shows the hold of the moving VM's ranks under strategy live, and no other's", () => {
    const timings = { ...rank(0).timings, late: 0, drain: 1000, teardown: 1000, held: 0 };
    const hold = { cause: "c", orderedMs: 1900, heldMs: 2000, releasedMs: 2900, goneOnMs: 3000, late: [] };
    const bands = (vm: string, holds: (typeof hold)[]) =>
      rankBands({ ...cycle(), strategy: "live", holds }, { ...rank(0), vm, timings }, 0, 7000);
    const [moved, stays] = [bands("vm1", []), bands("vm2", [hold])];
    expect(stays).toEqual(bands("vm2", []));
    expect(bands("vm1", [hold])).toEqual(
      moved.flatMap((b) =>
        b.band === "tcp"
          ? [
              { ...b, toMs: 2000 },
              { band: "held", fromMs: 2000, toMs: 3000 },
              { ...b, fromMs: 3000 },
            ]
          : [b],
      ),
    );
    expect(moved.map((b) => b.band)).toContain("tcp");
  });

  it("shows one route when the rank was never held", () => {
    const timings = { late: 0, drain: 0, teardown: 0, held: 0, load: 0, connect: 0 };
    expect(rankBands(cycle(), { ...rank(0), timings }, 0, 100)).toEqual([
      { band: "openib", fromMs: 0, toMs: 100 },
    ]);
  });
});

describe("job rate", () => {
  it("splits a long pause off the interval that ends with it", () => {
    const spans = rateSpans([
      { atMs: 0, iteration: 0, gapMs: 0 },
      { atMs: 500, iteration: 100, gapMs: 8 },
      { atMs: 5500, iteration: 151, gapMs: 4500 },
    ]);
    expect(spans).toEqual([
      { fromMs: 0, toMs: 500, perSecond: 200 },
      { fromMs: 500, toMs: 1000, perSecond: 100 },
      { fromMs: 1000, toMs: 5500, perSecond: 0 },
    ]);
  });

  it("takes a slow job's iterations for what they are", () => {
    const slow = [0, 1, 2, 3].map((n) => ({ atMs: n * 500, iteration: n * 2, gapMs: 300 }));
    expect(rateSpans(slow).map((s) => s.perSecond)).toEqual([4, 4, 4]);
    expect(longestPause(slow)).toBeNull();
  });

  it("never divides by nothing", () => {
    const spans = rateSpans([
      { atMs: 10, iteration: 1, gapMs: 0 },
      { atMs: 10, iteration: 2, gapMs: 0 },
      { atMs: 1010, iteration: 3, gapMs: 99_999 },
    ]);
    expect(spans).toEqual([{ fromMs: 10, toMs: 1010, perSecond: 1 }]);
    expect(longestPause([])).toBeNull();
  });
});

describe("longestGap", () => {
  const at = (atMs: number, iteration: number, gapMs: number) => ({ atMs, iteration, gapMs });

  it("is the time between two reports of one iteration, by the host's clock", () => {
    // The guest stood still for 200 ms of it and could not know.
    const samples = [at(0, 1, 0), at(100, 2, 100), at(900, 3, 600), at(1000, 4, 100)];
    expect(longestGap(samples, 0, 1000)).toEqual({ fromMs: 100, toMs: 900 });
  });

  it("is what the job said when a report stands for several iterations", () => {
    const samples = [at(0, 10, 9), at(500, 60, 40), at(1000, 110, 9)];
    expect(longestGap(samples, 0, 1000)).toEqual({ fromMs: 460, toMs: 500 });
  });

  it("looks only at what ended in the range", () => {
    const samples = [at(0, 1, 0), at(9000, 2, 9000), at(9100, 3, 100), at(20_000, 4, 10_900)];
    expect(longestGap(samples, 9050, 10_000)).toEqual({ fromMs: 9000, toMs: 9100 });
    expect(longestGap(samples, 100, 200)).toBeNull();
    expect(longestGap([], 0, 1)).toBeNull();
  });
});

describe("timelinePage", () => {
  it("shows every phase with its time, in the drawing and in a table", () => {
    const page = timelinePage(input());
    for (const span of cycle().phases) {
      expect(page).toContain(`>${span.phase}</text>`);
      expect(page).toContain(`<td>${span.phase}</td>`);
    }
    expect(page).toContain("<title>vm1 moved from h1 to h3 under stencil - symvirt</title>");
    expect(page).toContain("longest gap: 5.08 s without an iteration");
    expect(page).toContain('title="200000000 bytes">200 MB<');
  });

  it("loads nothing and runs nothing", () => {
    const page = timelinePage(input());
    expect(page).not.toMatch(/<script|<link|<img|@import|url\(|\son\w+=/i);
    expect(page.match(/https?:\/\/[^"]+/g)).toEqual(["http://www.w3.org/2000/svg"]);
  });

  it("escapes every string of the input", () => {
    const evil = `"><img src=x onerror='1'>&`;
    const changed = cycle();
    Object.assign(changed, { vm: evil, from: evil, to: evil, message: evil, startedAt: evil });
    changed.phases.push({ vm: evil, phase: "attach", startMs: 1, ms: 1 });
    changed.ranks = changed.ranks.map((r) => ({ ...r, vm: evil }));
    const routes = input().routes.map((r) => ({ ...r, vm: evil }));
    const bands = input().bands.map((b) => ({ ...b, vm: evil }));
    const page = timelinePage(
      input({ cycle: changed, job: evil, routes, bands, figures: [{ label: evil, value: evil }] }),
    );
    expect(page).not.toContain("<img");
    expect(page).not.toContain(evil);
    expect(page).toContain("&lt;img src=x");
  });

  it("gives a phase of no length a visible mark", () => {
    const changed = { ...cycle(), phases: [{ vm: "vm1", phase: "wait" as const, startMs: 100, ms: 0 }] };
    expect(timelineSvg(input({ cycle: changed }))).toMatch(/width="2\.00" height="14" rx="2" class="p-idle"/);
  });

  it("draws a cycle that failed at once and a job that said nothing", () => {
    const changed = {
      ...cycle(),
      outcome: "rolled-back" as const,
      totalMs: 0,
      phases: [],
      ranks: [],
      preCopy: null,
    };
    const empty = input({ cycle: changed, samples: [], routes: [], bands: [] });
    expect(timeRange(empty).toMs).toBeGreaterThan(timeRange(empty).fromMs);
    const page = timelinePage(empty);
    expect(page).toContain("Failed and rolled back");
    expect(page).toContain("reported no progress");
    expect(page).not.toMatch(/NaN|Infinity|undefined/);
  });

  it("shows the whole pause of the job, within reason", () => {
    const pausedUntil = (atMs: number) =>
      timeRange(input({ samples: [{ atMs, iteration: 9, gapMs: atMs - 1000 }] })).toMs;
    expect(pausedUntil(12_000)).toBeGreaterThan(12_000);
    expect(pausedUntil(900_000)).toBeLessThan(40_000);
  });

  it("puts the migrated VM first", () => {
    expect(vmsOf(cycle().phases, "vm1")).toEqual(["vm1", "vm2"]);
  });
});
