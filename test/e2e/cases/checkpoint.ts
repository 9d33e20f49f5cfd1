/** A checkpoint under a job at full rate, both VMs killed, and the job set back to it as often as one likes. */
import { describe, expect, it } from "vitest";
import type { SetReport } from "../../../src/index.js";
import { type CliResult, words } from "../../../src/testbed/command.js";
import { Job } from "../../../src/testbed/job.js";
import { expectOn } from "../../../src/testbed/outcomes.js";
import type { E2eLab } from "../support/lab-fixture.js";
import { say, timed } from "../support/progress.js";

function setReport(result: CliResult): SetReport {
  expect(result.code, words(result)).toBe(0);
  return JSON.parse(result.stdout) as SetReport;
}

export function checkpointCases(lab: () => E2eLab): void {
  describe("checkpoint and restart", () => {
    it.each([
      ["live", "stencil", 2],
      ["park", "ring", 2],
      // Many messages of every size on their way, over tcp when the wires are cut.
      ["live", "sizes", 5],
    ] as const)(
      "taken %s under %s: a killed cluster goes on from it, %i times, every second time on another host",
      async (strategy, program, times) => {
        const job = await Job.start(lab(), program, { detached: true });
        const before = await job.expectOpenib();
        const taken = await timed("checkpoint", async () =>
          setReport(await lab().cli(["checkpoint", "--name", "e2e", "--strategy", strategy, "--json"])),
        );
        const pauses = taken.vms.map(({ vm, pauseMs }) => `${vm} ${Math.round(pauseMs ?? 0)} ms`).join(", ");
        say(
          `paused ${pauses}; without network ${Math.round(taken.withoutNetworkMs ?? 0)} ms; ${taken.strategy}`,
        );
        say(taken.phases.map((p) => `${p.phase} ${p.ms}`).join(", "));
        expect(taken.strategy).toBe(strategy);
        const id = taken.checkpoint;
        for (const { vm, host } of taken.vms) await expectOn(lab(), vm, host);
        await job.expectGoesOn(await job.expectOpenib({ since: before, epochs: 1 }));

        const refused = await lab().cli(["restart", id]);
        expect(refused.code, words(refused)).toBe(3);
        expect(refused.stderr).toMatch(/vm1 still runs on h\d \(pid \d+\)/);

        for (let time = 1; time <= times; time++) {
          const elsewhere = time % 2 === 1 ? [] : ["--on", `vm1=${await lab().freeHost()}`];
          await lab().killVms();
          const restarted = await timed(`restart ${time}`, async () =>
            setReport(await lab().cli(["restart", id, "--json", ...elsewhere])),
          );
          say(restarted.phases.map((p) => `${p.phase} ${p.ms}`).join(", "));
          for (const { vm, host } of restarted.vms) await expectOn(lab(), vm, host);
          await job.expectGoesOn(await job.expectOpenib({ since: before, epochs: 1 }));
          await job.expectRightEnd();
        }
        const removed = await lab().cli(["checkpoints", "rm", id]);
        expect(removed.code, words(removed)).toBe(0);
      },
    );
  });
}
