/** Every workload under migrations of alternating VMs, at random moments. */
import { setTimeout as delay } from "node:timers/promises";
import { describe, it } from "vitest";
import { Job } from "../../../src/testbed/job.js";
import { migrateUnderJob, type Strategy } from "../../../src/testbed/outcomes.js";
import { freshSeed, random } from "../../../src/testbed/random.js";
import { full } from "../support/extent.js";
import type { E2eLab } from "../support/lab-fixture.js";
import { say, timed } from "../support/progress.js";

/** Live migrations of every workload; one parked one comes second, so that each follows the other. */
const liveTimes = Number(process.env.SYMVIRT_E2E_MIGRATIONS ?? (full ? "5" : "2"));
const course: readonly Strategy[] = Array.from({ length: liveTimes + 1 }, (_, i) =>
  i === 1 ? "park" : "live",
);
/** Longest random wait before a migration, longer than an iteration of any workload. */
const MOST_PAUSE_MS = 2500;

const seed = Number(process.env.SYMVIRT_E2E_SEED ?? freshSeed());
const { below } = random(seed);

const programs = [
  { program: "ring", args: [], course },
  { program: "sizes", args: [], course },
  { program: "collectives", args: [], course },
  { program: "onesided", args: [], course },
  { program: "stencil", args: [], course },
  { program: "churn", args: [], course: full ? course : course.slice(0, 1) },
  { program: "late", args: ["--compute", "3"], course: full ? course : course.slice(0, 1) },
  // Of the evaluation: only with SYMVIRT_E2E=full, as no test names them.
  ...["memtest", "cg", "ft", "lu", "is"].map((program) => ({ program, args: [], course })),
];

/** All workloads, or those named. */
export function workloadCases(lab: () => E2eLab, names?: readonly string[]): void {
  describe("workloads under migration", () => {
    const chosen = programs.filter(({ program }) => full || names === undefined || names.includes(program));
    it.each(chosen)("$program goes right through $course", async ({ program, args, course }) => {
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
