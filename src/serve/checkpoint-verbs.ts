/** Checkpoint and restart for the server, over the script API. */
import type { Controller } from "../controller/script.js";
import { CheckpointStore } from "../checkpoint/store.js";
import { SymvirtError } from "../errors.js";
import { Journal } from "../controller/state/journal.js";
import type { CheckpointVerbs } from "./verbs.js";

/** Undefined when the cluster file names no store: then there are no checkpoints. */
export function checkpointVerbs(controller: Controller): CheckpointVerbs | undefined {
  const { cluster } = controller;
  if (cluster.checkpoints === undefined) return undefined;
  return {
    checkpoint: (order, run) => controller.checkpoint({ ...order, ...run }),
    restart: ({ checkpoint, ...order }, run) => controller.restart({ id: checkpoint, ...order, ...run }),
    endCutOff: async (gone, run) => {
      if (new Journal(cluster.state).interrupted()?.verb !== "restart") return;
      const { outcome, message } = await controller.abort({ gone, ...run });
      if (outcome === "needs-operator") throw new SymvirtError("needsOperator", message);
    },
    verify: async (id, signal) => {
      const { ok, parts } = await new CheckpointStore(cluster).verify(id, { signal });
      return ok ? undefined : parts.flatMap((p) => (p.ok ? [] : [p.trouble])).join("; ");
    },
    complete: async () => controller.checkpoints(),
  };
}
