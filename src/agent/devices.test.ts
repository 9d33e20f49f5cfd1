import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { hasRocePort, isLinkUp, readCards } from "./devices.js";
import { parseUevent } from "./uevent.js";

const ZERO = "0000:0000:0000:0000:0000:0000:0000:0000";
const LINK_LOCAL = "fe80:0000:0000:0000:5054:00ff:fe00:0001";
const MAPPED = "0000:0000:0000:0000:0000:ffff:0a58:0001";

let sys: string;
beforeEach(() => {
  sys = mkdtempSync(join(tmpdir(), "symvirt-sys-"));
});
afterEach(() => rmSync(sys, { recursive: true, force: true }));

function file(path: string, text: string): void {
  mkdirSync(dirname(join(sys, path)), { recursive: true });
  writeFileSync(join(sys, path), `${text}\n`);
}

function nic(
  pci: string,
  netdev: string,
  { vendor = "0x8086", pciClass = "0x020000", driver = "e1000e" } = {},
): void {
  const path = `bus/pci/devices/${pci}`;
  file(`${path}/class`, pciClass);
  file(`${path}/vendor`, vendor);
  mkdirSync(join(sys, "drivers", driver), { recursive: true });
  symlinkSync(join(sys, "drivers", driver), join(sys, path, "driver"));
  if (netdev === "") return;
  file(`${path}/net/${netdev}/address`, "52:54:00:00:00:01");
  file(`${path}/net/${netdev}/ifindex`, "7");
}

function verbs(
  name: string,
  options: { parent?: string; state?: string; layer?: string; gids: string[] },
): void {
  const path = `class/infiniband/${name}`;
  if (options.parent !== undefined) file(`${path}/parent`, options.parent);
  file(`${path}/ports/1/state`, options.state ?? "4: ACTIVE");
  file(`${path}/ports/1/link_layer`, options.layer ?? "Ethernet");
  for (const [i, gid] of options.gids.entries()) file(`${path}/ports/1/gids/${i}`, gid);
}

describe("readCards", () => {
  it("finds nothing where there is nothing", () => {
    expect(readCards(sys)).toEqual([]);
    expect(hasRocePort(sys)).toBe(false);
  });

  it("joins a soft device to its card by the interface", () => {
    nic("0000:01:00.0", "eth1");
    verbs("rxe0", { parent: "eth1", gids: [LINK_LOCAL, MAPPED, ZERO] });
    expect(readCards(sys)).toEqual([
      {
        pci: "0000:01:00.0",
        driver: "e1000e",
        netdev: "eth1",
        mac: "52:54:00:00:00:01",
        verbs: "rxe0",
        port: "ACTIVE",
        gid: MAPPED,
        ifindex: 7,
      },
    ]);
    expect(hasRocePort(sys)).toBe(true);
  });

  it("joins a hardware device by its PCI folder, also without an interface", () => {
    nic("0000:02:00.0", "", { pciClass: "0x020700", driver: "mlx5_core" });
    mkdirSync(join(sys, "bus/pci/devices/0000:02:00.0/infiniband/mlx5_0"), { recursive: true });
    verbs("mlx5_0", { layer: "InfiniBand", state: "2: INIT", gids: [LINK_LOCAL] });
    expect(readCards(sys)[0]).toMatchObject({
      verbs: "mlx5_0",
      port: "INIT",
      gid: LINK_LOCAL,
      netdev: "",
      mac: "",
    });
    expect(hasRocePort(sys)).toBe(false);
  });

  it("leaves out virtio cards and what is no network card", () => {
    nic("0000:00:02.0", "eth0", { vendor: "0x1af4", driver: "virtio-pci" });
    nic("0000:00:03.0", "", { pciClass: "0x010802", driver: "nvme" });
    expect(readCards(sys)).toEqual([]);
  });

  it("does not take a foreign device for the card's", () => {
    nic("0000:01:00.0", "eth1");
    verbs("rxe9", { parent: "eth9", gids: [MAPPED] });
    expect(readCards(sys)[0]).toMatchObject({ verbs: "", port: "", gid: "" });
  });

  it("a card without usable GID or ACTIVE port is not up", () => {
    nic("0000:01:00.0", "eth1");
    verbs("rxe0", { parent: "eth1", gids: [LINK_LOCAL, ZERO] });
    const [card] = readCards(sys);
    expect(card).toMatchObject({ port: "ACTIVE", gid: "" });
    expect(card !== undefined && isLinkUp(card)).toBe(false);
    expect(card !== undefined && isLinkUp({ ...card, gid: MAPPED })).toBe(true);
    expect(card !== undefined && isLinkUp({ ...card, gid: MAPPED, port: "DOWN" })).toBe(false);
  });
});

describe("parseUevent", () => {
  it("reads the head and the subsystem", () => {
    const raw = Buffer.from("add@/devices/pci0/net/eth1\0ACTION=add\0SUBSYSTEM=net\0INTERFACE=eth1\0");
    expect(parseUevent(raw)).toEqual({ action: "add", devpath: "/devices/pci0/net/eth1", subsystem: "net" });
  });
  it.each(["", "libudev\0xx", "@x", "noat\0SUBSYSTEM=net"])("is not fooled by %j", (text) => {
    expect(parseUevent(Buffer.from(text))).toBeUndefined();
  });
});
