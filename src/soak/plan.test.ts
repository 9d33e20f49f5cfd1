import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { planSoak, type SoakShape } from "./plan.js";

const shapes: fc.Arbitrary<SoakShape> = fc.record({
  seed: fc.nat(2 ** 32 - 1),
  cycles: fc.integer({ min: 1, max: 300 }),
  vms: fc.constantFrom(["vm1", "vm2"], ["vm1", "vm2", "vm3"]),
  freeHosts: fc.integer({ min: 1, max: 3 }),
});

describe("planSoak", () => {
  it("plans as many cycles as asked for, of VMs and free hosts there are", () => {
    fc.assert(
      fc.property(shapes, (shape) => {
        const cycles = planSoak(shape).flatMap((s) => s.cycles);
        expect(cycles).toHaveLength(shape.cycles);
        const possible = cycles.every(
          ({ vm, freeHost, pauseMs }) =>
            shape.vms.includes(vm) && freeHost < shape.freeHosts && pauseMs >= 0 && pauseMs < 4000,
        );
        expect(possible).toBe(true);
      }),
    );
  });

  it("has stretches of 3 to 8 cycles, but for the last", () => {
    fc.assert(
      fc.property(shapes, (shape) => {
        const lengths = planSoak(shape).map((s) => s.cycles.length);
        for (const length of lengths.slice(0, -1)) expect(length).toBeGreaterThanOrEqual(3);
        for (const length of lengths) expect(length).toBeLessThanOrEqual(8);
      }),
    );
  });

  it("is the same for the same seed, and a longer one begins as the shorter", () => {
    fc.assert(
      fc.property(shapes, (shape) => {
        expect(planSoak(shape)).toEqual(planSoak(shape));
        const short = planSoak(shape).slice(0, -1);
        const long = planSoak({ ...shape, cycles: shape.cycles + 50 });
        expect(long.slice(0, short.length)).toEqual(short);
      }),
    );
  });

  it("tries everything in a hundred cycles", () => {
    const stretches = planSoak({ seed: 1, cycles: 100, vms: ["vm1", "vm2"], freeHosts: 2 });
    const cycles = stretches.flatMap((s) => s.cycles);
    expect(new Set(cycles.map((c) => `${c.strategy} ${c.vm} ${c.freeHost}`)).size).toBe(8);
    expect(new Set(stretches.map((s) => s.program)).size).toBeGreaterThan(5);
    expect(planSoak({ seed: 2, cycles: 100, vms: ["vm1", "vm2"], freeHosts: 2 })).not.toEqual(stretches);
  });
});
