/** Fifty cycles of park and run in one job: nothing is left behind, memory does not grow, every byte is right. */
import { expect, it } from "vitest";
import { countsOf, holdings, type RankHoldings } from "../../../src/testbed/holdings.js";
import { Job } from "../../../src/testbed/job.js";
import type { E2eLab } from "../support/lab-fixture.js";
import { say, timed } from "../support/progress.js";

const cycles = 50;
const looked = (cycle: number) => cycle === 3 || cycle % 10 === 0;

export function parkCycles(lab: () => E2eLab): void {
  it(`${cycles} cycles of park and run leave nothing behind`, async () => {
    const job = await Job.start(lab(), "sizes");
    const before = await job.expectOpenib();
    const { controller } = lab();
    let third: RankHoldings[] = [];
    let last: RankHoldings[] = [];
    await timed(`${cycles} cycles of park and run`, async () => {
      for (let cycle = 1; cycle <= cycles; cycle++) {
        await controller.waitAll(AbortSignal.timeout(120_000));
        if (looked(cycle)) {
          for (const held of await holdings(lab(), before)) expect(held).toMatchObject({ verbs: 0 });
        }
        await controller.signal(AbortSignal.timeout(120_000));
        if (!looked(cycle)) continue;
        const after = await job.expectOpenib({ since: before, epochs: cycle });
        last = await holdings(lab(), before);
        if (cycle === 3) third = last;
        await job.expectGoesOn(after);
        say(`after ${cycle} cycles: ${last.map((h) => `${h.descriptors} fd, ${h.rssKiB} KiB`).join("; ")}`);
      }
    });
    expect(last.map(countsOf)).toEqual(third.map(countsOf));
    for (const [i, { rank, rssKiB }] of last.entries())
      expect((rssKiB - (third[i]?.rssKiB ?? 0)) / (cycles - 3), `KiB a cycle of rank ${rank}`).toBeLessThan(
        1024,
      );
    await job.expectRightEnd();
  });
}
