/** The facts of one VM as its QEMU tells them. */
import type { VmFacts } from "../driver.js";
import { isCard, pluggedDevices } from "./qom-cards.js";
import type { QemuSession } from "./session.js";

/**
 * Reads status, machine, cards, blockers, version, memory and migration state. Cards are the devices with a tag of
 * `cards`, and those on a root port of it. Changes nothing.
 */
export async function inspectVm(
  session: QemuSession,
  cards: ReadonlyMap<string, string>,
  signal: AbortSignal,
): Promise<VmFacts> {
  const { status } = await session.execute("query-status", {}, signal);
  const type = await session.execute("qom-get", { path: "/machine", property: "type" }, signal);
  const devices = await pluggedDevices(session, signal);
  const migration = await session.execute("query-migrate", {}, signal);
  const version = await session.execute("query-version", {}, signal);
  const memory = await session.execute("query-memory-size-summary", {}, signal);
  const { major, minor, micro } = version.qemu;
  return {
    status,
    machine: String(type).replace(/-machine$/, ""),
    cards: devices.flatMap((device) =>
      device.tag !== undefined && isCard(device, cards) ? [device.tag] : [],
    ),
    blockers: migration["blocked-reasons"] ?? [],
    vmmVersion: `${major}.${minor}.${micro}`,
    memoryBytes: memory["base-memory"] + (memory["plugged-memory"] ?? 0),
    migration: migration.status ?? "none",
  };
}
