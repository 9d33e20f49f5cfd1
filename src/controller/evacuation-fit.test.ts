import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { fit, type Leaver, type Room, whyNot } from "./evacuation-fit.js";

const GiB = 2 ** 30;
const leaver = (vm: string, needs: string[] = ["vfio"], memoryBytes = GiB): Leaver => ({
  vm,
  needs,
  memoryBytes,
});
const room = (host: string, cards: string[], memoryBytes = 8 * GiB): Room => ({ host, cards, memoryBytes });

describe("fit", () => {
  it("takes the host with the most memory, or the operator's order", () => {
    const rooms = [room("h2", ["vfio"], 4 * GiB), room("h3", ["vfio"])];
    expect(fit([leaver("vm1")], rooms)).toEqual(new Map([["vm1", "h3"]]));
    expect(fit([leaver("vm1")], rooms, { inOrder: true })).toEqual(new Map([["vm1", "h2"]]));
  });

  it("lets the VM choose first that has the fewest hosts", () => {
    const rooms = [room("h2", ["vfio", "e1000e"]), room("h3", ["vfio"], 4 * GiB)];
    const leavers = [leaver("vm1"), leaver("vm2", ["vfio", "e1000e"])];
    expect(fit(leavers, rooms)).toEqual(
      new Map([
        ["vm1", "h3"],
        ["vm2", "h2"],
      ]),
    );
  });

  it("counts the cards and the memory of those it has placed", () => {
    expect(fit([leaver("vm1"), leaver("vm2")], [room("h2", ["vfio"])])).toBeUndefined();
    expect(fit([leaver("vm1"), leaver("vm2")], [room("h2", ["vfio", "vfio"], 1.5 * GiB)])).toBeUndefined();
    expect(fit([leaver("vm1"), leaver("vm2")], [room("h2", ["vfio", "vfio"], 2 * GiB)])?.size).toBe(2);
  });

  it("says why one VM does not fit on one host", () => {
    expect(whyNot(leaver("vm1"), room("h2", ["e1000e"]))).toBe("h2 has no free vfio card (free: e1000e)");
    expect(whyNot(leaver("vm1"), room("h2", ["vfio"], GiB / 2))).toBe(
      "h2 has 512 MiB of memory free and vm1 needs 1024",
    );
    expect(whyNot(leaver("vm1", []), room("h2", []))).toBeUndefined();
  });

  it("finds a choice exactly when there is one", () => {
    const driver = fc.constantFrom("a", "b");
    const leavers = fc.array(
      fc.record({ needs: fc.array(driver, { maxLength: 2 }), gib: fc.integer({ min: 1, max: 3 }) }),
      {
        maxLength: 4,
      },
    );
    const rooms = fc.array(
      fc.record({ cards: fc.array(driver, { maxLength: 3 }), gib: fc.integer({ min: 0, max: 6 }) }),
      { maxLength: 3 },
    );
    fc.assert(
      fc.property(leavers, rooms, (ls, rs) => {
        const who = ls.map((l, i) => leaver(`vm${i}`, l.needs, l.gib * GiB));
        const where = rs.map((r, i) => room(`h${i}`, r.cards, r.gib * GiB));
        const found = fit(who, where);
        const fits = (choice: readonly number[]) =>
          where.every((r, h) => {
            const there = who.filter((_, i) => choice[i] === h);
            return (
              whyNot(
                {
                  vm: "all",
                  needs: there.flatMap((l) => l.needs),
                  memoryBytes: there.reduce((s, l) => s + l.memoryBytes, 0),
                },
                r,
              ) === undefined
            );
          });
        // Every choice there is, counted through.
        const all: number[][] = who.reduce<number[][]>(
          (cs, _) => cs.flatMap((c) => where.map((_r, h) => [...c, h])),
          [[]],
        );
        expect(found !== undefined).toBe(all.some(fits));
        if (found !== undefined)
          expect(fits(who.map((l) => where.findIndex((r) => r.host === found.get(l.vm))))).toBe(true);
      }),
    );
  });
});
