import { describe, expect, it } from "vitest";
import type { CycleReport } from "../controller/report.js";
import { Drawing } from "./drawing.js";
import type { RankTraffic } from "./input.js";
import { linearScale } from "./scale.js";
import { drawTraffic } from "./traffic-rows.js";

const cycle: CycleReport = {
  ...{ schemaVersion: 1, cycle: 1, verb: "migrate", strategy: "live", outcome: "done", message: "" },
  ...{ vm: "vm1", from: "h1", to: "h3", startedAt: "2026-11-22T22:00:00.000Z", totalMs: 800 },
  ...{ phases: [], ranks: [], holds: [], preCopy: null },
};
const at = (ms: number, openib: number, tcp = 0) => ({ ms, openib, tcp });

/** One pixel a millisecond, from 100. */
function draw(bands: RankTraffic[], of: CycleReport = cycle): string {
  const drawing = new Drawing();
  drawTraffic(drawing, linearScale(0, 1000, 100, 1100), bands, of);
  return drawing.parts.join("\n");
}

describe("drawTraffic", () => {
  it("draws a ground for each run of a route and a bar for each span, as high as its rate", () => {
    const svg = draw([
      { rank: 3, vm: "vm1", samples: [at(0, 0), at(400, 4000), at(800, 4000, 2000), at(1000, 4000, 2000)] },
    ]);
    expect(svg).toContain(">rank 3 on vm1</text>");
    expect(svg).toContain("(full height: 10.0 kB/s)");
    expect(svg).toMatch(/<rect x="100" [^>]*width="400.00" height="26" class="b-openib ground">/);
    expect(svg).toMatch(/<rect x="500" [^>]*width="400.00" height="26" class="b-tcp ground">/);
    expect(svg).toMatch(/<rect x="900" [^>]*width="200.00" height="26" class="b-none ground">/);
    expect(svg).toMatch(/<path class="b-openib" d="M100 [\d.]+h400.0v26.0h-400.0z">/);
    expect(svg).toMatch(/<path class="b-tcp" d="M500 [\d.]+h400.0v13.0h-400.0z">/);
    expect(svg.match(/<path/g)).toHaveLength(2);
    expect(svg).toContain("<title>rank 3 on vm1, 400 ms to 800 ms: tcp (openib 0, tcp 2.0 kB)</title>");
    expect(svg).toContain("nothing moved (openib 0, tcp 0)</title>");
  });

  it("stacks both routes of a span in which the rank changed over", () => {
    const svg = draw([{ rank: 0, vm: "vm1", samples: [at(0, 0), at(1000, 300, 700)] }]);
    expect(svg).toMatch(/class="b-openib" d="M100 ([\d.]+)h1000.0v7.8h/);
    expect(svg).toMatch(/class="b-tcp" d="M100 ([\d.]+)h1000.0v18.2h/);
  });

  it("keeps the least traffic visible, and cuts a burst too short for a rate at the full height", () => {
    const samples = [at(0, 0), at(400, 100_000), at(800, 100_001), at(810, 200_000)];
    const heights = [...draw([{ rank: 0, vm: "vm1", samples }]).matchAll(/h[\d.]+v([\d.]+)h-/g)].map((m) =>
      Number(m[1]),
    );
    expect(heights).toEqual([26, 2, 26]);
  });

  it("says so when there is no sample in the range", () => {
    const svg = draw([{ rank: 0, vm: "vm1", samples: [at(-500, 0), at(-100, 9)] }]);
    expect(svg).toContain(">no samples</text>");
    expect(svg).not.toMatch(/NaN|Infinity|<path/);
  });

  it("shows below the band how long a rank was held by its own clock, and no such thing of one that ran on", () => {
    const samples = [at(0, 0), at(1000, 10)];
    const side = { route: "openib", epoch: 1, openib: traffic(), tcp: traffic() } as const;
    const span = (held: number): CycleReport["ranks"][number] => ({
      ...{ rank: 0, vm: "vm1", moved: true, before: side, after: side },
      timings: { late: 0, drain: 1000, teardown: 1000, held, load: 0, connect: 0 },
    });
    const phases = [{ vm: "vm1", phase: "drain" as const, startMs: 100, ms: 2 }];
    const parked = draw([{ rank: 0, vm: "vm1", samples }], {
      ...cycle,
      strategy: "park",
      phases,
      ranks: [span(500_000)],
    });
    expect(parked).toContain("rank 0 on vm1: held for 500 ms, by its own clock");
    const ran = draw([{ rank: 0, vm: "vm1", samples }], { ...cycle, phases, ranks: [span(0)] });
    expect(ran).not.toContain("by its own clock");
  });
});

function traffic() {
  return { sentFragments: 0, receivedFragments: 0, sentBytes: 0, receivedBytes: 0 };
}
