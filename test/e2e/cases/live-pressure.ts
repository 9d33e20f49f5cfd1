/** What only strategy live can get wrong: waiting for one rank, and a put that overtakes nothing because the wire is slow. */
import { setTimeout as delay } from "node:timers/promises";
import { expect, it } from "vitest";
import { Job } from "../../../src/testbed/job.js";
import { migrateUnderJob } from "../../../src/testbed/outcomes.js";
import type { E2eLab } from "../support/lab-fixture.js";
import { say } from "../support/progress.js";

/**
 * Nobody waits for a rank that computes, 5 s at a time, without calling MPI: the others' longest pause over whole
 * cycles, less what it is in half a minute without any. When one of them moves itself, there are the last passes of pre-copy and the new QEMU in it, which an
 * emulated guest feels (docs/benchmarks.md, blackout): then it must be well below those 5 s.
 */
const UNDISTURBED_MS = 30_000;
const COMPUTES = ["--compute", "5"];
const lateCases = [
  { who: "the one that computes moves", moves: (vms: readonly string[]) => vms.slice(-1), most: 1000 },
  { who: "the others move", moves: (vms: readonly string[]) => vms.slice(0, -1), most: 4000 },
];

export function lateRank(lab: () => E2eLab): void {
  it.each(lateCases)(
    `a rank that computes 5 s: the others never stop for $most ms when $who`,
    async ({ moves, most }) => {
      const quiet = await Job.start(lab(), "late", { args: COMPUTES });
      await delay(UNDISTURBED_MS);
      const { longestGapMs: usual } = await quiet.expectRightEnd();
      const job = await Job.start(lab(), "late", { args: COMPUTES });
      // There and back.
      for (const vm of [...moves(lab().vms), ...moves(lab().vms)])
        await migrateUnderJob(lab(), job, { vm, strategy: "live" });
      // The late rank's own pauses are not in it (test/workloads/late.c).
      const { longestGapMs } = await job.expectRightEnd();
      say(`longest gap of the others: ${longestGapMs} ms, undisturbed ${usual} ms`);
      expect(longestGapMs - usual).toBeLessThan(most);
    },
  );
}

/**
 * Large messages by put (no get, so that the receiver hands out its memory), and tcp at 60 Mbit/s: a put that is
 * reported complete when it has only been written to the socket would be overtaken by its FIN.
 */
const puts = [
  ["btl_openib_flags", "send,put,need-ack,need-csum,hetero-rdma"],
  ["mpi_leave_pinned", "0"],
  // By default the first megabyte of a message is sent; so nearly all of it is put.
  ["btl_openib_rdma_pipeline_send_length", "4096"],
  ["btl_openib_min_rdma_pipeline_size", "20000"],
] as const;

export function slowTcp(lab: () => E2eLab): void {
  it.each(["ring", "sizes"])("%s with puts over tcp at 60 Mbit/s", async (program) => {
    await lab().limitTcp("60mbit");
    try {
      const job = await Job.start(lab(), program, { mca: puts });
      for (const vm of lab().vms) await migrateUnderJob(lab(), job, { vm, strategy: "live" });
      await job.expectRightEnd();
    } finally {
      await lab().limitTcp(undefined);
    }
  });
}
