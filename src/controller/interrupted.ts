/** An interrupted cycle in words, for whoever is refused because of it. */
import type { InterruptedCycle } from "./state/journal.js";

export function interruptedWords({ verb, target }: Pick<InterruptedCycle, "verb" | "target">): string {
  return `cycle ${target.cycle} (${begunWords({ verb, target })}) was interrupted`;
}

/** What a cycle was begun for: "migrate vm1 to h3", "recover vm1", "restart c3", "checkpoint". */
export function begunWords({ verb, target }: { verb: string; target: InterruptedCycle["target"] }): string {
  const { vm, from, to, set } = target;
  if (set !== undefined) return verb === "restart" ? `restart ${set.checkpoint}` : verb;
  return from === to ? `${verb} ${vm}` : `migrate ${vm} to ${to}`;
}
