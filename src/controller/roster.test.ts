import { describe, expect, it } from "vitest";
import { Roster } from "./roster.js";

type State = Parameters<Roster["update"]>[1];

describe("a guest that invents jobs", () => {
  it("is heard up to a number of them, and told of once", () => {
    const roster = new Roster();
    const tell = (from: number, count: number) =>
      roster.update("vm1", {
        jobs: Array.from({ length: count }, (_, i) => ({
          ...{ job: `job.${from + i}`, worldSize: 1, uid: 0, ranks: [] },
        })),
      } as unknown as State);
    expect(tell(0, 256)).toEqual([]);
    expect(tell(256, 16)).toEqual(["vm1 has told of more than 256 jobs"]);
    for (let i = 0; i < 100; i++) expect(tell(300 + 16 * i, 16)).toEqual([]);
    expect(tell(0, 16)).toEqual([]);
    expect(roster.jobs()).toHaveLength(16);
  });
});
