/** The controller of a checkpoint or a restart is killed: `abort` gives the job back, and no checkpoint is lost. */
import { describe, expect, it } from "vitest";
import type { SetReport } from "../../../src/index.js";
import { type CliResult, words } from "../../../src/testbed/command.js";
import { Job } from "../../../src/testbed/job.js";
import { expectOn, type Strategy } from "../../../src/testbed/outcomes.js";
import type { E2eLab } from "../support/lab-fixture.js";
import { say, timed } from "../support/progress.js";

function well(result: CliResult): CliResult {
  expect(result.code, words(result)).toBe(0);
  return result;
}

/** Kills the command once it is in the phase, and has others refused until `abort` has been called. */
async function killIn(lab: E2eLab, args: readonly string[], phase: string): Promise<void> {
  const run = lab.start([...args, "--json"]);
  await lab.hasEntered(run, phase);
  run.kill("SIGKILL");
  await run.ended;
  const again = await lab.cli(["checkpoint"]);
  expect(again.code, words(again)).toBe(3);
  expect(again.stderr).toContain("symvirt abort");
  await timed(`abort after a kill in ${phase}`, async () => well(await lab.cli(["abort"])));
}

async function completeOnes(lab: E2eLab): Promise<string[]> {
  const { stdout } = well(await lab.cli(["checkpoints", "ls", "--json"]));
  const { checkpoints: all } = JSON.parse(stdout) as { checkpoints: { id: string; state: string }[] };
  expect(all.filter((c) => c.state !== "complete")).toEqual([]);
  return all.map((c) => c.id);
}

export function setKills(lab: () => E2eLab): void {
  describe("the controller is killed", () => {
    it("in a checkpoint and in a restart: nothing is lost but its work", async () => {
      const job = await Job.start(lab(), "ring", { detached: true });
      await job.expectOpenib();
      const taken = well(await lab().cli(["checkpoint", "--name", "before", "--json"]));
      const { checkpoint: id, vms } = JSON.parse(taken.stdout) as SetReport;

      const kills: [string, Strategy, "kept" | "given up"][] = [
        ["drain", "live", "given up"],
        ["detach", "park", "given up"],
        ["hold", "park", "given up"],
        ["cut", "live", "given up"],
        ["save", "park", "given up"],
        ["link-up", "live", "kept"],
      ];
      for (const [phase, strategy, outcome] of kills) {
        await killIn(lab(), ["checkpoint", "--strategy", strategy], phase);
        for (const { vm, host } of vms) await expectOn(lab(), vm, host);
        await job.expectGoesOn(await job.expectOpenib());
        const now = await completeOnes(lab());
        expect(now, phase).toHaveLength(outcome === "kept" ? 2 : 1);
        expect(now).toContain(id);
        for (const other of now.filter((one) => one !== id))
          well(await lab().cli(["checkpoints", "rm", other]));
      }

      await lab().killVms();
      for (const phase of ["load", "link-up"]) {
        await killIn(lab(), ["restart", id], phase);
        for (const { vm } of vms) expect(await lab().qemuHosts(vm)).toEqual([]);
        expect(await completeOnes(lab())).toEqual([id]);
      }
      well(await lab().cli(["restart", id]));
      for (const { vm, host } of vms) await expectOn(lab(), vm, host);
      await job.expectGoesOn(await job.expectOpenib());
      await job.expectRightEnd();
      well(await lab().cli(["checkpoints", "verify", id]));
      well(await lab().cli(["checkpoints", "rm", id]));
    });
  });

  describe("a VM is killed", () => {
    it("while it is saved: the way back is told, and is one", async () => {
      const job = await Job.start(lab(), "ring", { detached: true });
      await job.expectOpenib();
      const taken = well(await lab().cli(["checkpoint", "--name", "before", "--json"]));
      const { checkpoint: id, vms } = JSON.parse(taken.stdout) as SetReport;

      const run = lab().start(["checkpoint", "--json"]);
      await lab().hasEntered(run, "save");
      const host = await lab().hostOf("vm2");
      process.kill(lab().qemuPid("vm2", host), "SIGKILL");
      const failed = await run.ended;
      say(words(failed));
      expect(failed.code, words(failed)).toBe(6);
      const { message, complete } = JSON.parse(failed.stdout) as SetReport;
      expect(complete).toBe(false);
      expect(message).toContain(`vm2 no longer runs on ${host}`);
      expect(message).toContain("symvirt restart");
      expect(await lab().qemuHosts("vm1")).toHaveLength(1);
      expect(await completeOnes(lab())).toEqual([id]);

      await lab().killVms();
      well(await lab().cli(["restart", id]));
      for (const { vm, host: before } of vms) await expectOn(lab(), vm, before);
      await job.expectGoesOn(await job.expectOpenib());
      await job.expectRightEnd();
      well(await lab().cli(["checkpoints", "rm", id]));
    });
  });
}
