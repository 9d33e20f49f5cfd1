/**
 * Checkpoint and restart for the server. The controller of this version has neither, so there are none: the server
 * answers 501, and a reactive policy is refused at the start. This is the one place to change when it has.
 */
import type { Controller } from "../controller/script.js";
import type { CheckpointVerbs } from "./verbs.js";

export function checkpointVerbs(_controller: Controller): CheckpointVerbs | undefined {
  return undefined;
}
