/** An interrupted cycle in words, for whoever is refused because of it. */
import type { InterruptedCycle } from "./state/journal.js";

export function interruptedWords({ verb, target }: Pick<InterruptedCycle, "verb" | "target">): string {
  const { cycle, vm, from, to, set } = target;
  const what =
    set === undefined
      ? from === to
        ? `${verb} ${vm}`
        : `migrate ${vm} to ${to}`
      : verb === "restart"
        ? `restart ${set.checkpoint}`
        : verb;
  return `cycle ${cycle} (${what}) was interrupted`;
}
