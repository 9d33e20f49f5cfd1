/** The wires of a VM's NICs: cut while a consistent cut goes through the cluster, and joined again. */
import { QmpCommandError } from "./qmp-errors.js";
import { isCard, pluggedDevices } from "./qom-cards.js";
import type { QemuSession } from "./session.js";

/** As QEMU does by itself after a migration: five frames within 600 ms. */
const ANNOUNCE = { initial: 50, max: 550, rounds: 5, step: 100 };

/**
 * Sets the link of every NIC that is not one of `cards`. Down, QEMU drops every frame in both directions, and
 * the guest sees its carrier go. Up, it announces itself, so that bridges learn where its MAC is now.
 */
export async function setLinks(
  session: QemuSession,
  cards: ReadonlyMap<string, string>,
  up: boolean,
  signal: AbortSignal,
): Promise<void> {
  for (const name of await netdevs(session, cards, signal))
    await session.execute("set_link", { name, up }, signal);
  if (up) await session.execute("announce-self", ANNOUNCE, signal);
}

/** Names of the backends of those NICs. A backend's link is also its NIC's. */
async function netdevs(
  session: QemuSession,
  cards: ReadonlyMap<string, string>,
  signal: AbortSignal,
): Promise<string[]> {
  const found = new Set<string>();
  for (const device of await pluggedDevices(session, signal)) {
    const { path } = device;
    if (isCard(device, cards)) continue;
    try {
      const netdev = await session.execute("qom-get", { path, property: "netdev" }, signal);
      if (typeof netdev === "string" && netdev !== "") found.add(netdev);
    } catch (error) {
      // Not a NIC.
      if (!(error instanceof QmpCommandError)) throw error;
    }
  }
  return [...found];
}
