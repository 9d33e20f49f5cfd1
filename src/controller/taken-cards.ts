/** Which cards of a host other VMs have, as the placement says. */
import type { Fleet } from "./fleet.js";

/** Card name -> the VM that has it, `except` left out. */
export function takenCards(fleet: Fleet, host: string, except?: string): Map<string, string> {
  const taken = new Map<string, string>();
  for (const [vm, place] of fleet.placement.read())
    if (vm !== except && fleet.hostOf(vm) === host)
      for (const name of Object.values(place.cards)) taken.set(name, vm);
  return taken;
}
