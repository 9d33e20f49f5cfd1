/** Hot-plug of a card on its root port. */
import type { Card } from "../../controller/cluster-file.js";
import { SymvirtError } from "../../errors.js";
import { QmpCommandError } from "./qmp-errors.js";
import { difference, type PluggedDevice, pluggedDevices } from "./qom-cards.js";
import type { QemuSession } from "./session.js";

/** Set by symvirt itself; a card's options must not. */
const RESERVED = ["driver", "id", "bus"];

/**
 * Plugs `card` into `bus` under the id `tag`. The same card already there under the tag is success;
 * another one, or another card on the bus, is an error ("refused"), as is whatever QEMU says no to.
 *
 * Resolves when QEMU has the card; the guest brings it up later (link-up is the agent's word).
 */
export async function attachCard(
  session: QemuSession,
  wanted: { tag: string; bus: string; card: Card },
  signal: AbortSignal,
): Promise<void> {
  const { tag, bus, card } = wanted;
  const reserved = Object.keys(card.options).find((name) => RESERVED.includes(name));
  if (reserved !== undefined) {
    throw refused(
      session,
      wanted,
      `option "${reserved}" is symvirt's to set`,
      "remove it from the card's options",
    );
  }
  const before = await pluggedDevices(session, signal);
  const present = before.find((device) => device.tag === tag);
  if (present !== undefined) {
    const other = await difference(session, present, bus, card, signal);
    if (other === undefined) return;
    throw refused(session, wanted, `there is another device of that id: ${other}`, `detach ${tag} first`);
  }
  // QEMU itself would put a second card at a slot of the port where no guest looks for it.
  const occupant = before.find((device) => device.bus === bus);
  if (occupant !== undefined) {
    throw refused(session, wanted, `the bus is occupied by ${named(occupant)}`, "use one root port a card");
  }
  try {
    await session.execute("device_add", { ...card.options, driver: card.driver, id: tag, bus }, signal);
  } catch (error) {
    if (!(error instanceof QmpCommandError)) throw error;
    throw refused(
      session,
      wanted,
      `QEMU says: ${error.description}`,
      "compare the card's driver and options, and the VM's root ports, with its command line",
      error,
    );
  }
  const after = (await pluggedDevices(session, signal)).find((device) => device.tag === tag);
  if (after === undefined) {
    throw refused(session, wanted, "QEMU accepted it, but it is not there", "look at the VMM's log");
  }
}

function named(device: PluggedDevice): string {
  return device.tag === undefined ? `a ${device.driver} without id` : `${device.tag} (${device.driver})`;
}

function refused(
  session: QemuSession,
  wanted: { tag: string; bus: string },
  why: string,
  hint: string,
  cause?: unknown,
): SymvirtError {
  return new SymvirtError("refused", `attach: ${wanted.tag} at ${wanted.bus} of ${session.name}: ${why}`, {
    hint,
    ...(cause === undefined ? {} : { cause }),
  });
}
