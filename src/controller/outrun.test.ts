import { describe, expect, it } from "vitest";
import { OUTRUN_MS, OUTRUN_RATIO, OutrunWatch } from "./outrun.js";

const MB = 1e6;
const look = (dirtyMBs: number, sentMBs: number) => ({
  ...{ status: "active", transferred: 1, remaining: 1, total: 2 },
  ...{ dirtyBytesPerSecond: dirtyMBs * MB, sentBytesPerSecond: sentMBs * MB },
});

/** The time of the look (one every 500 ms) that said so, undefined if none did. */
function when(looks: readonly ReturnType<typeof look>[]): number | undefined {
  const watch = new OutrunWatch();
  const at = looks.findIndex((one, i) => watch.sample(one, 1000 + i * 500));
  return at < 0 ? undefined : at * 500;
}
const times = (n: number, dirty: number, sent: number) => Array(n).fill(look(dirty, sent));

describe("a guest that outruns pre-copy", () => {
  it("is told after so long, not before", () => {
    expect(when(times(40, 60, 50))).toBe(OUTRUN_MS);
    expect(when(times(OUTRUN_MS / 500, 60, 50))).toBeUndefined();
  });

  it("is also one that writes all of its working set in every pass, which shows a little less than is sent", () => {
    expect(when(times(40, 48, 50))).toBe(OUTRUN_MS);
    expect(when(times(400, 50 * OUTRUN_RATIO - 0.1, 50))).toBeUndefined();
  });

  it("is not one that slows down between, and the time begins anew", () => {
    expect(when([...times(9, 60, 50), look(10, 50), ...times(10, 60, 50)])).toBeUndefined();
    expect(when([...times(9, 60, 50), look(10, 50), ...times(20, 60, 50)])).toBe(5000 + OUTRUN_MS);
  });

  it("is not known before the first pass is complete, nor when nothing goes out", () => {
    expect(when(times(200, 0, 50))).toBeUndefined();
    expect(when(times(200, 0, 0))).toBeUndefined();
    expect(when(times(200, 60, 0))).toBeUndefined();
  });
});
