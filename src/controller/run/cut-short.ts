/** A cycle that its controller cannot go on with: no room for the journal, or a fault of its own. */
import { SymvirtError } from "../../errors.js";
import { sentence } from "../errors-in-words.js";

/** The one sentence for it. What was begun is as after the controller's death, and is ended in the same way. */
export function cutShort(error: unknown, cycle: number, phase: string): SymvirtError {
  return new SymvirtError("needsOperator", `cycle ${cycle} was cut short in ${phase}: ${sentence(error)}`, {
    hint: "then run `symvirt abort`: it finishes the cycle or rolls it back",
    cause: error,
  });
}
