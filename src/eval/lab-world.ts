/** The evaluation's world for real: a lab of two VMs with a rank each, three hosts, and a controller. */
import type { CycleReport, SetReport } from "../index.js";
import { Controller } from "../index.js";
import { labDown, labUp } from "../lab/index.js";
import { Fault } from "../testbed/fault.js";
import type { Say } from "../testbed/progress.js";
import { until } from "../testbed/progress.js";
import { Testbed } from "../testbed/testbed.js";
import { GuestJob } from "./guest-job.js";
import type { Checkpointing, Disturbance, EvalWorld } from "./world.js";

/** Moves; rank 0, whose clock measures, is in vm1. */
const MOVED = "vm2";
const BACK_MS = 60_000;

/** The phases of the VM that moved, in the order of time; a hold is beside them. */
export function disturbanceOf(report: CycleReport): Disturbance {
  const own = report.phases.filter((span) => span.vm === report.vm).sort((a, b) => a.startMs - b.startMs);
  return {
    phases: own.filter(({ phase }) => phase !== "held").map(({ phase, ms }) => ({ phase, ms })),
    heldMs: own.reduce((sum, { phase, ms }) => (phase === "held" ? sum + ms : sum), 0),
  };
}

async function migrate(bed: Testbed, strategy: "live" | "park", signal: AbortSignal): Promise<Disturbance> {
  const to = await bed.freeHost();
  const report = await bed.controller.migrate({ vm: MOVED, to, strategy, signal });
  if (report.outcome !== "done")
    throw new Fault("failed", `the cycle (${strategy}) was not done: ${report.message}`);
  if (report.strategy !== strategy)
    throw new Fault("failed", `the job was moved by strategy ${report.strategy}, not ${strategy}`);
  bed.say(
    `${strategy}: ${MOVED} to ${to} in ${(report.totalMs / 1000).toFixed(1)} s, downtime ${report.preCopy?.downtimeMs ?? 0} ms`,
  );
  await backOverOpenib(bed, signal);
  return disturbanceOf(report);
}

async function backOverOpenib(bed: Testbed, signal: AbortSignal): Promise<void> {
  await until(
    "ranks over openib after the cycle",
    BACK_MS,
    async () => {
      const ranks = (await bed.status()).jobs
        .flatMap((j) => j.ranks)
        .filter((r) => r.report.state !== "left");
      if (ranks.length < bed.worldSize)
        throw new Fault("failed", "the job ended before the operation was over: give it more --seconds");
      return ranks.every((r) => r.report.route === "openib") ? true : undefined;
    },
    { signal },
  );
}

async function clearUp(bed: Testbed): Promise<string> {
  const aborted = await bed.cli(["abort"]);
  if (aborted.code !== 0) bed.say(`symvirt abort: ${aborted.stderr.trim()}`);
  await bed.killJobs();
  const { vms } = await bed.status();
  return vms
    .filter((v) => v.status !== "running" || v.cards.length === 0 || v.trouble !== "")
    .map((v) => `${v.vm} is ${v.status} on ${v.host}, cards: ${v.cards.join(", ") || "none"} ${v.trouble}`)
    .join("; ");
}

/** All VMs as one cut, killed, and started from it again; `job` is followed on. */
function checkpointing(bed: Testbed, job: () => GuestJob | undefined, signal: AbortSignal): Checkpointing {
  let last: string | undefined;
  const done = async (report: SetReport): Promise<Disturbance> => {
    if (report.outcome !== "done")
      throw new Fault("failed", `${report.verb} was not done: ${report.message}`);
    bed.say(`${report.verb} of ${report.checkpoint}: ${(report.totalMs / 1000).toFixed(1)} s`);
    await backOverOpenib(bed, signal);
    return { phases: report.phases.map(({ phase, ms }) => ({ phase, ms })), heldMs: 0 };
  };
  return {
    checkpoint: async () => {
      const report = await bed.controller.checkpoint({ signal });
      last = report.checkpoint;
      return await done(report);
    },
    restart: async () => {
      if (last === undefined) throw new Error("nothing was saved");
      await bed.killVms(signal);
      const report = await bed.controller.restart({ id: last, signal });
      job()?.followAnew();
      return await done(report);
    },
  };
}

export interface EvalLab {
  world: EvalWorld;
  close(): Promise<void>;
}

/** Boots the lab. What was made is taken down if it fails. */
export async function openEvalLab(name: string, say: Say, signal: AbortSignal): Promise<EvalLab> {
  const shape = { name, vms: 2, hosts: 3, ranksPerVm: 1 };
  const { lab, accelerator } = await labUp({
    name,
    vms: shape.vms,
    hosts: shape.hosts,
    ranks: 1,
    say,
    signal,
  });
  try {
    const bed = new Testbed(shape, lab, await Controller.open(lab.path), say);
    let job: GuestJob | undefined;
    return {
      world: {
        accelerator,
        ranks: bed.worldSize,
        start: async (workload, args) => {
          job = await GuestJob.start(bed, workload, args, signal);
          return job;
        },
        migrate: (strategy) => migrate(bed, strategy, signal),
        checkpointing: checkpointing(bed, () => job, signal),
        clearUp: () => clearUp(bed),
      },
      close: async () => {
        await bed.controller.close();
        await labDown({ name, say });
      },
    };
  } catch (failure) {
    await labDown({ name, say });
    throw failure;
  }
}
