/** Checkpoint and restart for the server, over the script API. */
import type { Controller } from "../controller/script.js";
import { Journal } from "../controller/state/journal.js";
import type { CheckpointVerbs } from "./verbs.js";

/** Undefined when the cluster file names no store: then there are no checkpoints. */
export function checkpointVerbs(controller: Controller): CheckpointVerbs | undefined {
  const { cluster } = controller;
  if (cluster.checkpoints === undefined) return undefined;
  return {
    checkpoint: (order, run) => controller.checkpoint({ ...order, ...run }),
    restart: ({ checkpoint, ...order }, run) => controller.restart({ id: checkpoint, ...order, ...run }),
    endCutOff: async (run) => {
      if (new Journal(cluster.state).interrupted()?.verb === "restart") await controller.abort(run);
    },
    complete: async () => controller.checkpoints(),
  };
}
