/** The little the demo needs of the controller's script API. */
import type { Strategy } from "../controller/strategy.js";
import { Controller, type CycleReport } from "../index.js";
import { formatBytes } from "../timeline/scale.js";
import { type RankSample, sampleOf } from "./route-bytes.js";

export interface ControllerPort {
  /** Ranks now in a job; those that have left are no part of it any more. */
  ranks(): Promise<RankSample[]>;
  migrate(vm: string, to: string, say: (line: string) => void): Promise<CycleReport>;
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
    async migrate(vm, to, say) {
      let phase = "";
      let told = 0;
      return await controller.migrate({
        ...{ vm, to, strategy, signal },
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
