/** A job that writes its memory faster than the stream takes it: pre-copy ends only because its ranks are held. */
import { describe, expect, it } from "vitest";
import type { CycleReport } from "../../../src/index.js";
import { words } from "../../../src/testbed/command.js";
import { Job } from "../../../src/testbed/job.js";
import type { E2eLab } from "../support/lab-fixture.js";
import { expectOn, expectRolledBack, reportOf } from "../../../src/testbed/outcomes.js";
import { say, timed, until } from "../support/progress.js";

/** Of each rank. A VM's two ranks stamp all of it many times a second; a second of the stream carries a quarter. */
const array = ["--megabytes", "48"];
const slow = ["--bandwidth", "24M"];

const spanOf = (report: CycleReport, phase: string) => report.phases.find((p) => p.phase === phase);

/** Migrates under the job; the ranks of the VM, and no others, were held, and pre-copy ended by that. */
async function expectHeld(lab: E2eLab, job: Job, vm: string, args: readonly string[], cause: RegExp) {
  const to = await lab.freeHost();
  const before = await job.expectOpenib();
  const bounded = ["--timeout", "3m"];
  const command = ["migrate", vm, "--to", to, "--strategy", "live", "--json", ...bounded, ...slow, ...args];
  const result = await timed(`symvirt ${command.join(" ")}`, () => lab.cli(command));
  expect(result.code, `${words(result)}\n${job.output()}`).toBe(0);
  const report = reportOf(result);
  expect(report).toMatchObject({ outcome: "done", strategy: "live", vm, to });
  expect(report.holds).toEqual([
    {
      cause: expect.stringMatching(cause),
      late: [],
      orderedMs: expect.any(Number),
      heldMs: expect.any(Number),
      releasedMs: expect.any(Number),
      goneOnMs: expect.any(Number),
    },
  ]);
  expect(spanOf(report, "held")?.vm).toBe(vm);
  for (const rank of report.ranks) {
    const label = `rank ${rank.rank} on ${rank.vm}`;
    if (rank.vm === vm) expect(rank.timings.held, label).toBeGreaterThan(0);
    else expect(rank.timings.held, label).toBe(0);
  }
  const after = await job.expectOpenib({ since: before, epochs: 1, vm });
  await expectOn(lab, vm, to);
  await job.expectGoesOn(after);
  const [hold] = report.holds;
  say(
    `${vm} to ${to}: pre-copy ${spanOf(report, "pre-copy")?.ms} ms, held ${spanOf(report, "held")?.ms} ms: ${hold?.cause}`,
  );
  return report;
}

export function convergenceCases(lab: () => E2eLab): void {
  describe("memory that changes faster than it is sent", () => {
    it("after the time that is set, and when the dirty rate says so, the ranks are held and it is moved; else never", async () => {
      const job = await Job.start(lab(), "dirty", { args: array });
      const report = await expectHeld(lab(), job, "vm2", ["--park-after", "5s"], /after 5 s/);
      await expectHeld(lab(), job, "vm2", [], /changed as fast as it was sent/);

      const [host, to] = [await lab().hostOf("vm2"), await lab().freeHost()];
      await job.expectOpenib();
      const command = ["migrate", "vm2", "--to", to, "--strategy", "live", "--json", ...slow];
      const run = lab().start([...command, "--park-after", "never"]);
      await lab().inPreCopy(run);
      // Twice as long as it took with the hold, and twice as much sent: the last pass never comes.
      const patience = 2 * (spanOf(report, "pre-copy")?.ms ?? 0);
      const enough = 2 * (report.preCopy?.transferredBytes ?? 0);
      const since = performance.now();
      await until("twice the time and bytes of the cycle before", 10 * patience, async () => {
        if (run.result() !== undefined) throw new Error(`it has ended: ${words(await run.ended)}`);
        const { migration } = (await lab().inPhase(run, "pre-copy")).running as {
          migration?: { transferred: number };
        };
        const isEnough = (migration?.transferred ?? 0) > enough && performance.now() - since > patience;
        return isEnough ? true : undefined;
      });
      const { running, jobs } = await lab().inPhase(run, "pre-copy");
      expect(running).not.toHaveProperty("hold");
      expect(jobs.flatMap((j) => j.ranks.map((r) => r.report.state))).not.toContain("held");
      await lab().controller.abort();
      const rolledBack = await expectRolledBack(lab(), await run.ended, {
        ...{ vm: "vm2", host, job, cause: /abort/ },
      });
      expect(rolledBack.holds).toEqual([]);
      await job.expectRightEnd();
    });
  });
}
