/** The little the demo needs of the controller's script API. */
import type { Strategy } from "../controller/strategy.js";
import { Controller, type CycleReport } from "../index.js";
import { formatBytes } from "../timeline/scale.js";
import { type RankSample, sampleOf, totalBytes } from "./route-bytes.js";
import type { MigrationListener } from "./stage.js";

/**
 * Time between two looks at the counters in a cycle, in milliseconds. Short against every phase that a reader wants to
 * see in the band; long against what a look costs: a thread of each rank wakes up and the agent writes a line, about
 * SAMPLE_COST.
 */
const SAMPLE_EVERY_MS = 250;

export interface ControllerPort {
  /** Ranks now in a job; those that have left are no part of it any more. */
  ranks(): Promise<RankSample[]>;
  migrate(vm: string, to: string, told: MigrationListener): Promise<CycleReport>;
  close(): Promise<void>;
}

/** Opens a controller; `signal` aborts (and rolls back) whatever it does. */
export async function openController(
  file: string,
  strategy: Strategy,
  signal: AbortSignal,
): Promise<ControllerPort> {
  const controller = await Controller.open(file);
  return {
    async ranks() {
      const ranks = await controller.ranks(signal);
      return ranks.filter((r) => r.report.state !== "left").map((r) => sampleOf(r.vm, r.report));
    },
    async migrate(vm, to, { say, reading }) {
      let phase = "";
      let told = 0;
      return await controller.migrate({
        ...{ vm, to, strategy, signal },
        sampling: {
          everyMs: SAMPLE_EVERY_MS,
          onSample: ({ rank, vm: at, atMs, openib, tcp }) =>
            reading({ rank, vm: at, atMs, bytes: { openib: totalBytes(openib), tcp: totalBytes(tcp) } }),
        },
        onProgress: (_target, progress) => {
          if (progress.phase !== phase) say(`cycle: ${progress.phase}`);
          phase = progress.phase;
          const { migration } = progress;
          if (migration === undefined || migration.transferred === 0 || performance.now() - told < 1000)
            return;
          told = performance.now();
          say(
            `cycle: ${progress.phase}, ${formatBytes(migration.transferred)} of memory sent, ${formatBytes(migration.remaining)} to go`,
          );
        },
      });
    },
    close: () => controller.close(),
  };
}
