/** Every workload under migrations of alternating VMs, at random moments. */
import { setTimeout as delay } from "node:timers/promises";
import { describe, it } from "vitest";
import { Job } from "../../../src/testbed/job.js";
import { migrateUnderJob, type Strategy } from "../../../src/testbed/outcomes.js";
import { freshSeed, random } from "../../../src/testbed/random.js";
import type { E2eLab } from "../support/lab-fixture.js";
import { say, timed } from "../support/progress.js";

/** Live migrations of every workload; one parked one comes second, so that each follows the other. */
const liveTimes = Number(process.env.SYMVIRT_E2E_MIGRATIONS ?? "3");
const course: readonly Strategy[] = Array.from({ length: liveTimes + 1 }, (_, i) =>
  i === 1 ? "park" : "live",
);
/** Longest random wait before a migration, longer than an iteration of any workload. */
const MOST_PAUSE_MS = 2500;

const seed = Number(process.env.SYMVIRT_E2E_SEED ?? freshSeed());
const { below } = random(seed);

const programs = [
  { program: "ring", args: [] },
  { program: "sizes", args: [] },
  { program: "collectives", args: [] },
  { program: "onesided", args: [] },
  { program: "stencil", args: [] },
  { program: "churn", args: [] },
  { program: "late", args: ["--compute", "3"] },
];

export function workloadCases(lab: () => E2eLab): void {
  describe("workloads under migration", () => {
    it.each(programs)(`$program goes right through ${course.join(", ")}`, async ({ program, args }) => {
      say(`the pauses are those of SYMVIRT_E2E_SEED=${seed}`);
      await timed(`workload ${program}`, async () => {
        const job = await Job.start(lab(), program, { args });
        for (const [i, strategy] of course.entries()) {
          await delay(below(MOST_PAUSE_MS));
          await migrateUnderJob(lab(), job, { vm: lab().vms[i % lab().vms.length] ?? "", strategy });
        }
        await job.expectRightEnd();
      });
    });
  });
}

/** Ten consecutive migrations of alternating VMs under one running job. */
export function manyMigrations(lab: () => E2eLab, strategy: Strategy): void {
  it(`ten consecutive migrations of alternating VMs under one job, strategy ${strategy}`, async () => {
    await timed("ten migrations", async () => {
      const job = await Job.start(lab(), "stencil");
      for (let i = 0; i < 10; i++)
        await migrateUnderJob(lab(), job, { vm: lab().vms[i % lab().vms.length] ?? "", strategy });
      await job.expectRightEnd();
    });
  });
}
