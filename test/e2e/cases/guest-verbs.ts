/** `symvirt mpirun` in the guest, `symvirt doctor` and the plan of a job that runs without symvirt. */
import { describe, expect, it } from "vitest";
import { labExec } from "../../../src/lab/index.js";
import { words } from "../../../src/testbed/command.js";
import { Job } from "../../../src/testbed/job.js";
import type { E2eLab } from "../support/lab-fixture.js";
import { until } from "../support/progress.js";

export function guestVerbs(lab: () => E2eLab): void {
  describe("mpirun and doctor", () => {
    const mpirun = ["symvirt", "mpirun", "--allow-run-as-root"];

    it("mpirun returns the program's exit code and shows its command", async () => {
      const seven = await labExec(lab().lab, "vm1", [...mpirun, "-np", "1", "sh", "-c", "exit 7"]);
      expect(seven.code, seven.stderr).toBe(7);
      const shown = await labExec(lab().lab, "vm1", ["symvirt", "mpirun", "--print-cmd", "-np", "2", "a b"]);
      expect(shown.code, shown.stderr).toBe(0);
      expect(shown.stdout).toMatch(/mpirun -np 2 .*LD_PRELOAD=\S*libsymvirt\.so .*'a b'/s);
    });

    it("doctor and plan: a healthy VM, and a job that runs without symvirt", async () => {
      const healthy = await lab().cli(["doctor", "vm1"]);
      expect(healthy.code, words(healthy)).toBe(0);

      const job = await Job.start(lab(), "ring", { env: ["SYMVIRT_DISABLE=1"], route: "any" });
      await until("the job iterates", 120_000, () => (job.iteration > 0 ? true : undefined), {
        why: () => job.output(),
      });
      const to = await lab().freeHost();
      const plan = await lab().cli(["plan", "vm1", "--to", to]);
      expect(plan.code, words(plan)).toBe(3);
      expect(plan.stderr + plan.stdout).toMatch(/rank 0 .*SYMVIRT_DISABLE/s);
      const doctor = await lab().cli(["doctor", "vm1"]);
      expect(doctor.code, words(doctor)).toBe(3);
      expect(doctor.stderr + doctor.stdout).toMatch(/SYMVIRT_DISABLE/);
      await job.expectRightEnd();
    });
  });
}
