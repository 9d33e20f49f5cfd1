import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { carrierOf, carrierRuns, peakRate, rateOf, trafficSpans } from "./traffic-spans.js";

const at = (ms: number, openib: number, tcp = 0) => ({ ms, openib, tcp });

/** A rank that changes over to tcp between 250 and 500, says nothing for a while, and comes back. */
const changesOver = [
  at(0, 1000),
  at(250, 2000),
  at(500, 2100, 400),
  at(1500, 2100, 2400),
  at(1750, 3100, 2400),
];

describe("trafficSpans", () => {
  it("has what moved between each two samples, and a long span where there was none", () => {
    expect(trafficSpans(changesOver)).toEqual([
      { fromMs: 0, toMs: 250, openib: 1000, tcp: 0 },
      { fromMs: 250, toMs: 500, openib: 100, tcp: 400 },
      { fromMs: 500, toMs: 1500, openib: 0, tcp: 2000 },
      { fromMs: 1500, toMs: 1750, openib: 1000, tcp: 0 },
    ]);
  });

  it("has none of one sample, nor of two at the same time", () => {
    expect(trafficSpans([])).toEqual([]);
    expect(trafficSpans([at(5, 1)])).toEqual([]);
    expect(trafficSpans([at(5, 1), at(5, 9)])).toEqual([]);
  });

  it("counts a counter that began anew from zero", () => {
    expect(trafficSpans([at(0, 5000, 7), at(100, 300, 7)])).toEqual([
      { fromMs: 0, toMs: 100, openib: 300, tcp: 0 },
    ]);
  });

  it("loses and invents no byte and no time, in whatever order the samples come", () => {
    const steps = fc.array(
      fc.record({ ms: fc.integer({ min: 1, max: 5000 }), openib: fc.nat(1e9), tcp: fc.nat(1e9) }),
      { minLength: 1 },
    );
    fc.assert(
      fc.property(steps, fc.infiniteStream(fc.nat()), (grown, order) => {
        let last = at(0, 0);
        const samples = grown.map(
          (g) => (last = at(last.ms + g.ms, last.openib + g.openib, last.tcp + g.tcp)),
        );
        const keyed = samples.map((sample) => ({ sample, key: order.next().value }));
        const shuffled = keyed.sort((a, b) => a.key - b.key).map((k) => k.sample);
        const spans = trafficSpans(shuffled);
        const sum = (of: (span: (typeof spans)[number]) => number) => spans.reduce((a, s) => a + of(s), 0);
        const first = samples[0] ?? last;
        expect(sum((s) => s.openib)).toBe(last.openib - first.openib);
        expect(sum((s) => s.tcp)).toBe(last.tcp - first.tcp);
        expect(sum((s) => s.toMs - s.fromMs)).toBe(last.ms - first.ms);
        const runs = carrierRuns(spans);
        expect(runs.reduce((a, r) => a + r.openib + r.tcp, 0)).toBe(sum((s) => s.openib + s.tcp));
        runs.slice(1).forEach((run, i) => {
          expect(run.fromMs).toBe(runs[i]?.toMs);
          expect(run.carrier).not.toBe(runs[i]?.carrier);
        });
      }),
    );
  });
});

describe("carrierRuns", () => {
  it("is the route that carried more, and nothing where nothing moved", () => {
    expect([
      carrierOf(at(0, 1, 0)),
      carrierOf(at(0, 1, 2)),
      carrierOf(at(0, 2, 2)),
      carrierOf(at(0, 0)),
    ]).toEqual([...["openib", "tcp", "openib", "none"]]);
  });

  it("joins spans with the same carrier", () => {
    expect(carrierRuns(trafficSpans(changesOver))).toEqual([
      { carrier: "openib", fromMs: 0, toMs: 250, openib: 1000, tcp: 0 },
      { carrier: "tcp", fromMs: 250, toMs: 1500, openib: 100, tcp: 2400 },
      { carrier: "openib", fromMs: 1500, toMs: 1750, openib: 1000, tcp: 0 },
    ]);
  });

  it("changes nothing of what it was given", () => {
    const spans = trafficSpans(changesOver);
    const copy = structuredClone(spans);
    carrierRuns(spans);
    expect(spans).toEqual(copy);
  });
});

describe("rates", () => {
  it("are bytes per second over the span as long as it was", () => {
    expect(rateOf({ fromMs: 500, toMs: 1500, openib: 500, tcp: 1500 })).toBe(2000);
  });

  it("have their peak among all ranks, in the range, in spans long enough to have a rate", () => {
    const bands = [
      { rank: 0, vm: "a", samples: changesOver },
      { rank: 1, vm: "b", samples: [at(0, 0), at(10, 5000), at(1010, 11_000)] },
    ];
    expect(peakRate(bands, 0, 2000)).toBe(6000);
    expect(peakRate(bands, 1100, 1400)).toBe(2000);
    expect(peakRate([{ rank: 0, vm: "a", samples: [at(0, 0), at(50, 100)] }], 0, 100)).toBe(2000);
    expect(peakRate([], 0, 100)).toBe(0);
  });
});
