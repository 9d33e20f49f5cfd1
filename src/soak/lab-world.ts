/** The soak's world for real: a lab that is up. */
import { holdings } from "../testbed/holdings.js";
import { Job } from "../testbed/job.js";
import { migrateUnderJob } from "../testbed/outcomes.js";
import type { Testbed } from "../testbed/testbed.js";
import type { SoakWorld } from "./soak.js";

export function labWorld(bed: Testbed): SoakWorld {
  return {
    start: async (program, args) => {
      const job = await Job.start(bed, program, { args });
      return {
        cycle: async ({ vm, strategy, freeHost }) => {
          const free = await bed.freeHosts();
          const to = free[freeHost % free.length] ?? free[0];
          const { report, ranks } = await migrateUnderJob(bed, job, { vm, to, strategy });
          const { totalMs, preCopy } = report;
          const downtimeMs = preCopy?.downtimeMs ?? 0;
          return {
            done: { program, vm, to, strategy: report.strategy, totalMs, downtimeMs },
            held: await holdings(bed, ranks),
          };
        },
        end: async () => void (await job.expectRightEnd()),
      };
    },
    clearUp: async () => {
      await bed.sayWarnings();
      const aborted = await bed.cli(["abort"]);
      if (aborted.code !== 0) bed.say(`symvirt abort: ${aborted.stderr.trim()}`);
      await bed.killJobs();
      const { vms } = await bed.status();
      return vms
        .filter((v) => v.status !== "running" || v.cards.length === 0 || v.trouble !== "")
        .map(
          (v) => `${v.vm} is ${v.status} on ${v.host}, cards: ${v.cards.join(", ") || "none"} ${v.trouble}`,
        )
        .join("; ");
    },
  };
}
