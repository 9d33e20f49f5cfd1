import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { pino } from "pino";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import type { Addon, Descriptor } from "./addon.js";
import { DeviceWatch } from "./device-watch.js";
import type { Card } from "./devices.js";

let sys: string;
let wake: () => void;
let pending: Buffer[];
let watch: DeviceWatch;
const seen: (readonly Card[])[] = [];

/** Only uevents; the test says when one comes. */
const addon = {
  openUevents: () =>
    ({
      watch: (_r: boolean, _w: boolean, callback: (r: boolean, w: boolean) => void) => {
        wake = () => callback(true, false);
      },
      receiveUevent: () => pending.shift() ?? null,
      close: () => undefined,
    }) as Partial<Descriptor> as Descriptor,
} as Partial<Addon> as Addon;

function file(path: string, text: string): void {
  mkdirSync(dirname(join(sys, path)), { recursive: true });
  writeFileSync(join(sys, path), text);
}

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance"] });
  sys = mkdtempSync(join(tmpdir(), "symvirt-watch-"));
  pending = [];
  seen.length = 0;
  const card = "bus/pci/devices/0000:01:00.0";
  file(`${card}/class`, "0x020000");
  file(`${card}/vendor`, "0x8086");
  file(`${card}/net/eth1/address`, "52:54:00:00:00:01");
  file("class/infiniband/rxe0/parent", "eth1");
  file("class/infiniband/rxe0/ports/1/state", "4: ACTIVE");
  file("class/infiniband/rxe0/ports/1/link_layer", "Ethernet");
  file("class/infiniband/rxe0/ports/1/gids/0", "0000:0000:0000:0000:0000:ffff:0a58:0001");
  watch = new DeviceWatch({
    addon,
    sysfs: sys,
    log: pino({ level: "silent" }),
    changed: (cards) => seen.push(cards),
  });
});
afterEach(() => {
  watch.close();
  vi.useRealTimers();
  rmSync(sys, { recursive: true, force: true });
});

it("reads at once, and tells nothing while nothing changes", () => {
  expect(watch.cards[0]).toMatchObject({ verbs: "rxe0", port: "ACTIVE" });
  vi.advanceTimersByTime(60_000);
  expect(seen).toEqual([]);
});

it("sees a port go down without an event, then up within the quick poll", () => {
  file("class/infiniband/rxe0/ports/1/state", "1: DOWN");
  vi.advanceTimersByTime(2000);
  expect(seen.at(-1)?.[0]?.port).toBe("DOWN");
  file("class/infiniband/rxe0/ports/1/state", "4: ACTIVE");
  vi.advanceTimersByTime(250);
  expect(seen.at(-1)?.[0]?.port).toBe("ACTIVE");
});

it("reads soon after an event of the right kind, and once for a burst", () => {
  rmSync(join(sys, "bus/pci/devices/0000:01:00.0"), { recursive: true });
  pending = [Buffer.from("add@/x\0SUBSYSTEM=block\0")];
  wake();
  vi.advanceTimersByTime(100);
  expect(seen).toHaveLength(0);
  for (let i = 0; i < 50; i++) pending.push(Buffer.from("remove@/x\0SUBSYSTEM=net\0"));
  wake();
  vi.advanceTimersByTime(40);
  expect(seen).toEqual([[]]);
});

it("finds a card that came without any event within some seconds", () => {
  rmSync(join(sys, "bus/pci/devices/0000:01:00.0"), { recursive: true });
  vi.advanceTimersByTime(16_000);
  expect(seen).toEqual([[]]);
});
