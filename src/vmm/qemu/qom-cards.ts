/**
 * What sits on which root port, read from QEMU's object tree. `query-pci` is no use for this: it shows a
 * card behind a root port only after the guest's firmware has numbered the bus.
 */
import type { Card } from "../../controller/cluster-file.js";
import { QmpCommandError } from "./qmp-errors.js";
import type { QemuSession } from "./session.js";

export interface PluggedDevice {
  /** qdev id; undefined for a device without one. */
  tag: string | undefined;
  /** Object path, e.g. "/machine/peripheral/hca0". */
  path: string;
  /** QOM type, e.g. "e1000e". */
  driver: string;
  /** Name of the bus it is on, e.g. "rp0". */
  bus: string;
}

const PERIPHERAL = "/machine/peripheral";
/** Devices made without an id live here. */
const ANONYMOUS = "/machine/peripheral-anon";

/** Devices made by -device or device_add, with the bus each is on. */
export async function pluggedDevices(session: QemuSession, signal: AbortSignal): Promise<PluggedDevice[]> {
  const devices: PluggedDevice[] = [];
  for (const folder of [PERIPHERAL, ANONYMOUS]) {
    for (const entry of await session.execute("qom-list", { path: folder }, signal)) {
      const driver = /^child<(.+)>$/.exec(entry.type)?.[1];
      if (driver === undefined) continue;
      const path = `${folder}/${entry.name}`;
      const parent = await property(session, path, "parent_bus", signal);
      if (typeof parent !== "string") continue;
      devices.push({
        tag: folder === PERIPHERAL ? entry.name : undefined,
        path,
        driver,
        bus: parent.slice(parent.lastIndexOf("/") + 1),
      });
    }
  }
  return devices;
}

/**
 * Whether it is a card by the cluster file, which names tags and root ports. A tag counts wherever it sits: the file
 * may have changed since it was plugged in, and a card that is overlooked makes the destination refuse the VM.
 */
export function isCard({ tag, bus }: PluggedDevice, cards: ReadonlyMap<string, string>): boolean {
  return (tag !== undefined && cards.has(tag)) || [...cards.values()].includes(bus);
}

/** Whether a device of this tag is there, be it on a bus or on its way out. */
export async function isPresent(session: QemuSession, tag: string, signal: AbortSignal): Promise<boolean> {
  const entries = await session.execute("qom-list", { path: PERIPHERAL }, signal);
  return entries.some((entry) => entry.name === tag && entry.type.startsWith("child<"));
}

/**
 * In what a plugged device differs from the card wanted, e.g. `mac is "52:…:02", not "52:…:01"`;
 * undefined when it is the same card.
 */
export async function difference(
  session: QemuSession,
  device: PluggedDevice,
  bus: string,
  card: Card,
  signal: AbortSignal,
): Promise<string | undefined> {
  if (device.driver !== card.driver) return `it is a ${device.driver}, not a ${card.driver}`;
  if (device.bus !== bus) return `it is on bus ${device.bus}, not ${bus}`;
  for (const [name, wanted] of Object.entries(card.options)) {
    const found = await property(session, device.path, name, signal);
    if (found === undefined) return `its ${name} cannot be read`;
    if (canonical(found) !== canonical(wanted)) {
      return `its ${name} is ${JSON.stringify(found)}, not ${JSON.stringify(wanted)}`;
    }
  }
  return undefined;
}

/**
 * One form for the spellings QEMU takes for one value: on/yes/true, 0x10/16, capital letters in a MAC,
 * a PCI address with or without its domain.
 */
export function canonical(value: unknown): string {
  if (typeof value === "number" || typeof value === "boolean") return String(value);
  if (typeof value !== "string") return JSON.stringify(value) ?? "";
  const text = value.trim().toLowerCase();
  if (["on", "yes", "y"].includes(text)) return "true";
  if (["off", "no", "n"].includes(text)) return "false";
  if (/^(0x[0-9a-f]+|\d+)$/.test(text)) return String(Number(text));
  if (/^[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$/.test(text)) return `0000:${text}`;
  return text;
}

/** A property's value, undefined when the device has none of that name or has gone. */
async function property(
  session: QemuSession,
  path: string,
  name: string,
  signal: AbortSignal,
): Promise<unknown> {
  try {
    return await session.execute("qom-get", { path, property: name }, signal);
  } catch (error) {
    if (error instanceof QmpCommandError) return undefined;
    throw error;
  }
}
