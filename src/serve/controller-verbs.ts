/** The server's verbs over the script API. */
import type { Controller } from "../controller/script.js";
import { checkpointVerbs } from "./checkpoint-verbs.js";
import type { Verbs } from "./verbs.js";

export function controllerVerbs(controller: Controller): Verbs {
  const { reactive } = controller.cluster.policy;
  return {
    status: ({ peers }, signal) => controller.status(signal, { peers }),
    migrate: (order, run) => controller.migrate({ ...order, ...run }),
    evacuate: (order, run) => controller.evacuate({ ...order, ...run }),
    abort: (order, run) => controller.abort({ ...order, ...run }),
    look: (signal) => controller.look(signal),
    fence: (vms, signal) =>
      controller.fence({
        ...{ vms, signal },
        ...(reactive?.fence === undefined ? {} : { command: reactive.fence }),
      }),
    checkpoints: checkpointVerbs(controller),
  };
}
