import { describe, expect, it } from "vitest";
import { SymvirtError } from "../errors.js";
import {
  cardMac,
  checkLabName,
  fabricTap,
  isNamespaceOf,
  MAX_HOSTS,
  MAX_VMS,
  managementMac,
  managementTap,
  vmName,
} from "./addresses.js";
import { networkBatches } from "./network.js";

describe("names and addresses", () => {
  it("refuses lab names that could not be namespaces or paths", () => {
    expect(checkLabName("a")).toBe("a");
    expect(checkLabName("two-hosts-7")).toBe("two-hosts-7");
    for (const bad of ["", "-a", "a-", "A", "a b", "a/b", "..", "x".repeat(25)])
      expect(() => checkLabName(bad), bad).toThrow(SymvirtError);
  });

  it("owns only the namespaces of its own name", () => {
    expect(isNamespaceOf("a", "sv-a-sw")).toBe(true);
    expect(isNamespaceOf("a", "sv-a-h12")).toBe(true);
    expect(isNamespaceOf("a", "sv-a-h1-sw")).toBe(false);
    expect(isNamespaceOf("a-h1", "sv-a-h1-sw")).toBe(true);
    expect(isNamespaceOf("a", "sv-ab-sw")).toBe(false);
    expect(isNamespaceOf("a", "h1")).toBe(false);
  });

  it("gives every card of every host its own MAC, and no VM's management MAC", () => {
    const macs = new Set<string>();
    for (let host = 1; host <= MAX_HOSTS; host++)
      for (let card = 1; card <= MAX_VMS; card++) macs.add(cardMac(host, card));
    for (let n = 1; n <= MAX_VMS; n++) macs.add(managementMac(n));
    expect(macs.size).toBe(MAX_HOSTS * MAX_VMS + MAX_VMS);
    for (const mac of macs) expect(mac).toMatch(/^52:54:00(:[0-9a-f]{2}){3}$/);
  });
});

describe("networkBatches", () => {
  const batches = networkBatches({ lab: "t", hosts: 3, vms: MAX_VMS });

  it("makes the switch and every host", () => {
    expect(batches.map((batch) => batch.namespace)).toEqual(["sv-t-sw", "sv-t-h1", "sv-t-h2", "sv-t-h3"]);
  });

  it("uses no interface name longer than the kernel's 15 bytes", () => {
    const names = batches.flatMap(({ lines }) =>
      lines.flatMap((line) =>
        [...line.matchAll(/(?:add|name|set|dev|master) (sv-\S+)/g)].map((m) => m[1] ?? ""),
      ),
    );
    expect(names.length).toBeGreaterThan(50);
    for (const name of names) expect(name.length, name).toBeLessThanOrEqual(15);
  });

  it("makes the taps of every VM on every host, under the same names", () => {
    for (const { namespace, lines } of batches.slice(1))
      for (let n = 1; n <= MAX_VMS; n++) {
        expect(lines, namespace).toContain(`tuntap add ${managementTap(vmName(n))} mode tap`);
        expect(lines, namespace).toContain(`tuntap add ${fabricTap(vmName(n))} mode tap`);
      }
  });

  it("gives no two hosts one address", () => {
    const addresses = batches.flatMap(({ lines }) => lines.filter((line) => line.startsWith("addr add")));
    expect(addresses).toHaveLength(4);
    expect(new Set(addresses).size).toBe(4);
  });
});
