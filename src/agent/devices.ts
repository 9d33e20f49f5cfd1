/**
 * The network cards of this guest, read from sysfs and found by PCI address, never by interface name.
 * Virtio cards are left out: they carry the management network and stay across a migration.
 */
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { basename, join } from "node:path";
import type { DeviceReport } from "../protocol/messages.js";
import { errorCode } from "./addon.js";

const VIRTIO_VENDOR = "0x1af4";
/** PCI base class of network controllers (Ethernet 0x0200.., InfiniBand 0x0207..). */
const NETWORK_CLASS = "0x02";
const MAX_DEVICES = 16;
/** GIDs looked at; the table of a port may have hundreds of entries, nearly all zero. */
const MAX_GIDS = 16;

export interface Card extends DeviceReport {
  /** Grows with every interface the kernel makes: tells a new card at an old address. 0 without one. */
  ifindex: number;
}

/** Reads all cards. A card that vanishes while it is read gives what was still there. */
export function readCards(sysfs = "/sys"): Card[] {
  const verbs = readVerbs(sysfs);
  const cards: Card[] = [];
  for (const pci of list(join(sysfs, "bus/pci/devices"))) {
    const path = join(sysfs, "bus/pci/devices", pci);
    if (!read(join(path, "class")).startsWith(NETWORK_CLASS)) continue;
    if (read(join(path, "vendor")) === VIRTIO_VENDOR) continue;
    const netdev = list(join(path, "net"))[0] ?? "";
    const own = list(join(path, "infiniband"))[0];
    const found =
      verbs.find((v) => v.name === own) ??
      (netdev === "" ? undefined : verbs.find((v) => v.netdev === netdev));
    cards.push({
      pci: pci.slice(0, 32),
      driver: link(join(path, "driver")).slice(0, 32),
      netdev: netdev.slice(0, 32),
      mac: netdev === "" ? "" : read(join(path, "net", netdev, "address")).slice(0, 64),
      verbs: (found?.name ?? "").slice(0, 64),
      port: (found?.port ?? "").slice(0, 16),
      gid: (found?.gid ?? "").slice(0, 64),
      ifindex: netdev === "" ? 0 : Number(read(join(path, "net", netdev, "ifindex"))) || 0,
    });
    if (cards.length === MAX_DEVICES) break;
  }
  return cards;
}

/** A card is up when its port is ACTIVE and has a GID peers can reach. */
export function isLinkUp(card: DeviceReport): boolean {
  return card.verbs !== "" && card.port === "ACTIVE" && card.gid !== "";
}

/** True if any verbs port of this machine runs over Ethernet (soft or real RoCE). */
export function hasRocePort(sysfs = "/sys"): boolean {
  const root = join(sysfs, "class/infiniband");
  return list(root).some((name) =>
    list(join(root, name, "ports")).some(
      (port) => read(join(root, name, "ports", port, "link_layer")) === "Ethernet",
    ),
  );
}

interface Verbs {
  name: string;
  /** The network interface a soft device runs on; "" for a hardware device. */
  netdev: string;
  port: string;
  gid: string;
}

function readVerbs(sysfs: string): Verbs[] {
  const root = join(sysfs, "class/infiniband");
  return list(root).map((name) => ({
    name,
    // rdma_rxe and siw name their interface here; hardware drivers have no such file.
    netdev: read(join(root, name, "parent")),
    ...readPort(name, sysfs),
  }));
}

/** State and GID of a verbs device's first port: what changes without an event of the kernel. */
export function readPort(verbs: string, sysfs = "/sys"): { port: string; gid: string } {
  const ports = join(sysfs, "class/infiniband", verbs, "ports");
  const path = join(ports, list(ports)[0] ?? "1");
  // "4: ACTIVE"
  return { port: read(join(path, "state")).replace(/^\d+:\s*/, ""), gid: usableGid(path) };
}

/** InfiniBand: the first GID, if set. RoCE: the first IPv4-mapped one, the only kind that is routable by the adaptation. */
function usableGid(port: string): string {
  const ethernet = read(join(port, "link_layer")) === "Ethernet";
  for (let i = 0; i < (ethernet ? MAX_GIDS : 1); i++) {
    const gid = read(join(port, "gids", String(i)));
    if (gid === "" || /^[0:]+$/.test(gid)) continue;
    if (!ethernet || gid.startsWith("0000:0000:0000:0000:0000:ffff:")) return gid;
  }
  return "";
}

/** Names in a folder, sorted; none if it is not there. */
function list(path: string): string[] {
  try {
    return readdirSync(path).sort();
  } catch (error) {
    return gone(error, []);
  }
}

function read(path: string): string {
  try {
    return readFileSync(path, "latin1").trim();
  } catch (error) {
    return gone(error, "");
  }
}

function link(path: string): string {
  try {
    return basename(readlinkSync(path));
  } catch (error) {
    return gone(error, "");
  }
}

/** sysfs files vanish at any moment and answer with these while their device goes; all else is a bug. */
function gone<T>(error: unknown, value: T): T {
  if (["ENOENT", "ENODEV", "ENXIO", "ENOTDIR", "EINVAL", "EIO", "EOPNOTSUPP"].includes(errorCode(error)))
    return value;
  throw error;
}
