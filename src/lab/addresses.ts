/**
 * Names and addresses of a lab, all computed: VM N is vmN, 10.77.0.N on the management network and
 * 10.88.0.N on the fabric; host I is namespace sv-LAB-hI and 10.77.0.(100+I). Two labs never meet,
 * because every interface lives in a namespace that carries the lab's name.
 */
import { SymvirtError } from "../errors.js";

export const MAX_VMS = 16;
export const MAX_HOSTS = 16;
/** Longest name that still gives socket paths below the 107 bytes of a unix address. */
const LAB_NAME = /^[a-z0-9](?:[a-z0-9-]{0,22}[a-z0-9])?$/;

/** Throws a usage error for a name that cannot be part of namespaces and paths. */
export function checkLabName(name: string): string {
  if (LAB_NAME.test(name)) return name;
  throw new SymvirtError("usage", `Lab name "${name}" is not usable`, {
    hint: "use 1 to 24 lower-case letters, digits and dashes",
  });
}

export const vmName = (n: number): string => `vm${n}`;
export const hostName = (i: number): string => `h${i}`;

/** Namespace of a host, e.g. sv-lab-h1. */
export const hostNamespace = (lab: string, host: string): string => `sv-${lab}-${host}`;
/** Namespace of the switch that joins the hosts; people and tests reach the guests from here. */
export const switchNamespace = (lab: string): string => `sv-${lab}-sw`;

/** True for the namespaces of this lab only: a lab "a" does not own those of a lab "a-h1". */
export function isNamespaceOf(lab: string, namespace: string): boolean {
  const prefix = `sv-${lab}-`;
  return namespace.startsWith(prefix) && /^(?:h\d+|sw)$/.test(namespace.slice(prefix.length));
}

export const vmManagementAddress = (n: number): string => `10.77.0.${n}`;
export const hostManagementAddress = (i: number): string => `10.77.0.${100 + i}`;
export const SWITCH_ADDRESS = "10.77.0.254";
export const MANAGEMENT_SUBNET = "10.77.0.0/24";
export const vmFabricAddress = (n: number): string => `10.88.0.${n}`;

const hex = (n: number): string => n.toString(16).padStart(2, "0");
/** The guest's init knows this rule too (src/lab/guest/boot). */
export const managementMac = (n: number): string => `52:54:00:77:00:${hex(n)}`;
/** Each card of each host has its own MAC, so the card differs after a migration. */
export const cardMac = (host: number, card: number): string => `52:54:00:88:${hex(host)}:${hex(card)}`;
export const cardName = (host: number, card: number): string => `h${host}-nic${card}`;

/** The same tap names on every host, so a VM's command line is the same everywhere. */
export const managementTap = (vm: string): string => `sv-${vm}-m`;
export const fabricTap = (vm: string): string => `sv-${vm}-f`;
