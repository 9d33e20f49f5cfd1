/** Every workload under three migrations of alternating VMs. */
import { describe, it } from "vitest";
import { Job } from "../support/job.js";
import type { E2eLab } from "../support/lab-fixture.js";
import { migrateUnderJob, type Strategy } from "../support/outcomes.js";
import { timed } from "../support/progress.js";

const thrice = ["ring", "sizes", "collectives", "onesided", "stencil"];
const once = [
  { program: "late", args: ["--compute", "4"] },
  { program: "churn", args: [] },
];

export function workloadCases(lab: () => E2eLab, strategy: Strategy): void {
  describe(`workloads under migration, strategy ${strategy}`, () => {
    it.each(thrice)("%s goes right through three migrations", async (program) => {
      await timed(`workload ${program}`, async () => {
        const job = await Job.start(lab(), program);
        for (let i = 0; i < 3; i++) {
          const vm = lab().vms[i % lab().vms.length] ?? "";
          await migrateUnderJob(lab(), job, vm, strategy);
        }
        await job.expectRightEnd();
      });
    });

    it.each(once)("$program goes right through a migration", async ({ program, args }) => {
      await timed(`workload ${program}`, async () => {
        const job = await Job.start(lab(), program, { args });
        await migrateUnderJob(lab(), job, lab().vms.at(-1) ?? "", strategy);
        await job.expectRightEnd();
      });
    });
  });
}

/** Ten consecutive migrations of alternating VMs under one running job. */
export function manyMigrations(lab: () => E2eLab): void {
  it("ten consecutive migrations of alternating VMs under one job", async () => {
    await timed("ten migrations", async () => {
      const job = await Job.start(lab(), "stencil");
      for (let i = 0; i < 10; i++) {
        const vm = lab().vms[i % lab().vms.length] ?? "";
        await migrateUnderJob(lab(), job, vm, "park");
      }
      await job.expectRightEnd();
    });
  });
}
