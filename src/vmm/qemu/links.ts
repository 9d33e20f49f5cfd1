/** The wires of a VM's NICs: cut while a consistent cut goes through the cluster, and joined again. */
import { QmpCommandError } from "./qmp-errors.js";
import { isCard, pluggedDevices } from "./qom-cards.js";
import type { QemuSession } from "./session.js";

/** As QEMU does it after a migration: five frames within 600 ms. */
const ANNOUNCE = { initial: 50, max: 550, rounds: 5, step: 100 };

/** See VmDriver.nics. A backend's link is also its NIC's. */
export async function nics(
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

/** See VmDriver.setLinks: all are sent before the first is answered, as the guest has no network meanwhile. */
export async function setLinks(
  session: QemuSession,
  names: readonly string[],
  up: boolean,
  signal: AbortSignal,
): Promise<void> {
  await Promise.all(names.map((name) => session.execute("set_link", { name, up }, signal)));
}

/** See VmDriver.announce. */
export async function announce(session: QemuSession, signal: AbortSignal): Promise<void> {
  await session.execute("announce-self", ANNOUNCE, signal);
}
