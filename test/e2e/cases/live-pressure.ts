/** What only strategy live can get wrong: waiting for one rank, and a put that overtakes nothing because the wire is slow. */
import { expect, it } from "vitest";
import { Job } from "../../../src/testbed/job.js";
import { migrateUnderJob } from "../../../src/testbed/outcomes.js";
import type { E2eLab } from "../support/lab-fixture.js";
import { say } from "../support/progress.js";

/** Nobody waits for a rank that computes: the others' longest pause over whole cycles. */
const MOST_GAP_MS = 1000;

/** One rank computes 5 s at a time without calling MPI; each VM moves once. */
export function lateRank(lab: () => E2eLab): void {
  it(`a rank that computes 5 s: the others never stop for ${MOST_GAP_MS} ms, whichever VM moves`, async () => {
    const job = await Job.start(lab(), "late", { args: ["--compute", "5"] });
    for (const vm of lab().vms) await migrateUnderJob(lab(), job, { vm, strategy: "live" });
    // The late rank's own pauses are not in it (test/workloads/late.c).
    const { longestGapMs } = await job.expectRightEnd();
    say(`longest gap of the others: ${longestGapMs} ms`);
    expect(longestGapMs).toBeLessThan(MOST_GAP_MS);
  });
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
