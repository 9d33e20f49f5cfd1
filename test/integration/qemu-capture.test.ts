/** Captures of real QEMUs and what comes out of them; no guest is needed, the disk is written to by QEMU's own monitor. */
import { execFileSync } from "node:child_process";
import { createSocket, type Socket } from "node:dgram";
import { existsSync, readdirSync, readlinkSync, rmSync, statSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { CaptureMethod } from "../../src/vmm/driver.js";
import { abandonCapture } from "../../src/vmm/qemu/capture.js";
import { quote } from "../../src/vmm/qemu/run-on-host.js";
import { QemuSession } from "../../src/vmm/qemu/session.js";
import { type EmptyQemu, QemuNest } from "../support/empty-qemu.js";

const soon = () => AbortSignal.timeout(60_000);

let nest: QemuNest;
let folder: string;
beforeEach(async () => {
  nest = new QemuNest();
  folder = await nest.folder;
});
afterEach(() => nest.end());

const at = (file: string): string => join(folder, file);
const tool = (...argv: string[]): string =>
  execFileSync(argv[0] ?? "", argv.slice(1), { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });

/** A qcow2 image over a raw one: 1 MiB of `byte` at its beginning, 2 MiB of 9 below that. */
function makeDisk(name: string, byte: number): string {
  tool("qemu-img", "create", "-q", "-f", "raw", at(`${name}.base`), "16M");
  tool("qemu-io", "-f", "raw", "-c", "write -q -P 9 0 2M", at(`${name}.base`));
  tool("qemu-img", "create", "-q", "-f", "qcow2", "-b", at(`${name}.base`), "-F", "raw", at(name));
  tool("qemu-io", "-f", "qcow2", "-c", `write -q -P ${byte} 0 1M`, at(name));
  return at(name);
}

/** Throws unless the image holds that byte from `from` on. */
const expectBytes = (image: string, byte: number, from: string, length: string, format = "qcow2"): void => {
  const said = tool("qemu-io", "-r", "-U", "-f", format, "-c", `read -q -P ${byte} ${from} ${length}`, image);
  expect(said, `${image} at ${from}`).not.toMatch(/verification failed/);
};

const diskArguments = (image: string, format = "qcow2"): string[] => [
  ...["-drive", `file=${image},format=${format},if=none,id=root,file.locking=off`],
  ...["-device", "virtio-blk-pci,drive=root"],
];

/** A second QMP socket, for `monitor` while the driver has the first. */
const secondSocket = (name: string): string[] => ["-qmp", `unix:${at(`${name}.second`)},server=on,wait=off`];

const start = (name: string, extra: string[]): Promise<EmptyQemu> =>
  nest.start(name, [...secondSocket(name), ...extra]);

/** A line for QEMU's human monitor. */
async function monitor(qemu: EmptyQemu, line: string): Promise<void> {
  const socket = connect(at(`${qemu.name}.second`));
  const lines = createInterface({ input: socket })[Symbol.asyncIterator]();
  const send = async (execute: string, args: object = {}) => {
    socket.write(`${JSON.stringify({ execute, arguments: args })}\n`);
    for (;;) {
      const reply = JSON.parse((await lines.next()).value as string) as Record<string, unknown>;
      if ("error" in reply) throw new Error(JSON.stringify(reply));
      if ("return" in reply) return;
    }
  };
  await lines.next();
  await send("qmp_capabilities");
  await send("human-monitor-command", { "command-line": line });
  socket.destroy();
}

/** Captures; resolves with the pause when all is written. */
async function capture(
  qemu: EmptyQemu,
  name: string,
  options: {
    method?: CaptureMethod;
    sink?: string;
    onReady?: () => void;
    go?: Promise<void>;
    onTaken?: () => void;
    signal?: AbortSignal;
  } = {},
): Promise<number> {
  const facts = await qemu.driver.captureFacts(soon());
  let pauseMs = -1;
  await qemu.driver.capture({
    method: options.method ?? facts.method,
    sink: options.sink ?? `cat >${quote(at(`${name}.ram`))}; : >${quote(at(`${name}.ram.done`))}`,
    disks: facts.disks.map((disk) => ({ ...disk, copy: at(`${name}.${disk.drive}`) })),
    gate: at(`${name}.gate`),
    onReady: () => options.onReady?.(),
    go: options.go ?? Promise.resolve(),
    onTaken: (ms) => {
      expect(pauseMs, "taken once").toBe(-1);
      pauseMs = ms;
      options.onTaken?.();
    },
    signal: options.signal ?? soon(),
  });
  if (options.sink === undefined) await written(at(`${name}.ram`));
  return pauseMs;
}

/** The sink ends a little after the capture. */
async function written(file: string): Promise<void> {
  for (const until = performance.now() + 60_000; !existsSync(`${file}.done`);) {
    if (performance.now() > until) throw new Error(`${file} is not complete`);
    await sleep(20);
  }
}

/** Starts a VM from a capture, on a copy of its disk; it stands still. */
async function restored(from: string, name: string, extra: string[] = []): Promise<EmptyQemu> {
  tool("cp", at(`${from}.root`), at(`${name}.disk`));
  const qemu = await start(name, [...diskArguments(at(`${name}.disk`)), ...extra, "-incoming", "defer"]);
  await qemu.driver.restore(`cat ${quote(at(`${from}.ram`))}`, soon());
  return qemu;
}

const statusOf = async (qemu: EmptyQemu) => (await qemu.driver.inspect(soon())).status;

/** It runs, none of its memory is write-protected, and nothing of the capture goes on in it. */
async function expectUntouched(qemu: EmptyQemu): Promise<void> {
  expect(await statusOf(qemu)).toBe("running");
  const open = readdirSync(`/proc/${qemu.pid}/fd`).map((fd) => readlinkSync(`/proc/${qemu.pid}/fd/${fd}`));
  expect(open.filter((file) => file.includes("userfaultfd"))).toEqual([]);
  await qemu.driver.close();
  const session = qemu.session();
  expect(await session.execute("query-jobs", {}, soon())).toEqual([]);
  const nodes = await session.execute("query-named-block-nodes", { flat: true }, soon());
  expect(nodes.filter((n) => n["node-name"]?.startsWith("symvirt"))).toEqual([]);
  const capabilities = await session.execute("query-migrate-capabilities", {}, soon());
  expect(capabilities.find((c) => c.capability === "background-snapshot")?.state).toBe(false);
  await session.close();
}

const methods: CaptureMethod[] = ["background-snapshot", "stop-and-save"];
describe.each(methods)("capture by %s", (method) => {
  it("is of one instant, and VMs can be started from it again and again", async () => {
    const image = makeDisk("disk", 1);
    const a = await start("a", diskArguments(image));
    const facts = await a.driver.captureFacts(soon());
    expect(facts.disks).toEqual([
      { drive: "root", image, format: "qcow2", backing: at("disk.base"), usedBytes: expect.any(Number) },
    ]);
    if (method === "background-snapshot" && facts.method !== method) return;
    const pauseMs = await capture(a, "c", { method });
    expect(pauseMs).toBeGreaterThan(0);
    await expectUntouched(a);
    await monitor(a, 'qemu-io root "write -P 2 0 2M"');

    for (const name of ["b", "c"]) {
      const b = await restored("c", name);
      expect(await statusOf(b)).toBe("paused");
      await b.driver.resume(soon());
      expect(await statusOf(b)).toBe("running");
      await monitor(b, 'qemu-io root "write -P 3 0 3M"');
      await b.driver.quit(soon());
    }
    expectBytes(at("c.root"), 1, "0", "1M");
    expectBytes(at("c.root"), 9, "1M", "1M");
    expect(tool("qemu-img", "check", at("c.root"))).toContain("No errors");
    // The part over the base alone, not the base again.
    expect(statSync(at("c.root")).size).toBeLessThan(2 * 2 ** 20);
  });

  it("of a disk that is written to meanwhile holds what was there at the instant", async () => {
    const image = makeDisk("disk", 1);
    tool("qemu-io", "-f", "qcow2", "-c", "write -q -P 5 2M 14M", image);
    const a = await start("a", diskArguments(image));
    if (method === "background-snapshot" && (await a.driver.captureFacts(soon())).method !== method) return;
    let written: Promise<void> | undefined;
    await capture(a, "c", {
      method,
      onTaken: () => {
        written = monitor(a, 'qemu-io root "write -P 2 0 16M"');
      },
    });
    await written;
    expectBytes(at("c.root"), 1, "0", "1M");
    expectBytes(at("c.root"), 5, "2M", "14M");
    await a.driver.quit(soon());
    expectBytes(image, 2, "0", "16M");
  });

  it("whose sink fails leaves the VM as it was, and the next one works", async () => {
    const a = await start("a", diskArguments(makeDisk("disk", 1)));
    if (method === "background-snapshot" && (await a.driver.captureFacts(soon())).method !== method) return;
    // Takes a little and ends, as when the store is full.
    await capture(a, "c", { method, sink: "head -c 1000 >/dev/null; exit 1" });
    await expectUntouched(a);
    rmSync(at("c.root"));
    await capture(a, "c", { method });
    expect(await statusOf(await restored("c", "b"))).toBe("paused");
  });

  it("is ended by an abort, wherever it is", async () => {
    const a = await start("a", diskArguments(makeDisk("disk", 1)));
    if (method === "background-snapshot" && (await a.driver.captureFacts(soon())).method !== method) return;
    // A background snapshot is held for a second first.
    const later = method === "background-snapshot" ? [1100, 1200, 1400] : [];
    for (const [i, ms] of [1, 30, 60, 100, 200, ...later].entries()) {
      const outcome = await capture(a, `c${i}`, {
        method,
        sink: "sleep 1; cat >/dev/null",
        signal: AbortSignal.timeout(ms),
      }).catch((error: unknown) => error);
      expect(outcome).toMatchObject({ exit: "deadline" });
      await expectUntouched(a);
    }
  });
});

describe("a capture", () => {
  it("walks over all memory while the VM runs, and takes the disk at the later instant", async () => {
    const image = makeDisk("disk", 1);
    const a = await start("a", [...diskArguments(image), "-m", "1G"]);
    const second = new QemuSession({ vm: "a", host: "here", dial: [], qmp: at("a.second"), channel: "" });
    const { method } = await a.driver.captureFacts(soon());
    if (method !== "background-snapshot") return;
    let release: () => void = () => undefined;
    const go = new Promise<void>((resolve) => (release = resolve));
    let ready: () => void = () => undefined;
    const isReady = new Promise<void>((resolve) => (ready = resolve));
    const captured = capture(a, "c", { go, onReady: ready });
    await isReady;
    expect(await second.execute("query-status", {}, soon())).toMatchObject({ running: true });
    expect(await second.execute("query-migrate", {}, soon())).toMatchObject({ status: "setup" });
    await second.close();
    await monitor(a, 'qemu-io root "write -P 7 4M 1M"');
    release();
    await captured;
    await expectUntouched(a);
    await monitor(a, 'qemu-io root "write -P 2 0 5M"');
    expectBytes(at("c.root"), 1, "0", "1M");
    expectBytes(at("c.root"), 7, "4M", "1M");
    expect(await statusOf(await restored("c", "b", ["-m", "1G"]))).toBe("paused");
    expect(readdirSync(folder).filter((name) => name.includes("gate"))).toEqual([]);
  });

  it("that a killed controller left behind is ended by another", async () => {
    const a = await start("a", diskArguments(makeDisk("disk", 1)));
    const { method } = await a.driver.captureFacts(soon());
    const abandoned = capture(a, "c", { method, sink: "sleep 2" }).catch(() => undefined);
    const second = new QemuSession({ vm: "a", host: "here", dial: [], qmp: at("a.second"), channel: "" });
    const isOn = async () =>
      expect((await second.execute("query-migrate", {}, soon())).status).toBe("active");
    await vi.waitFor(isOn, { timeout: 20_000, interval: 20 });
    await abandonCapture(second, at("c.gate"), soon());
    await second.close();
    await abandoned;
    await expectUntouched(a);
    await a.driver.abandonCapture(at("c.gate"), soon());
  });

  it("that a killed controller left held back is let go by another, and keeps nothing", async () => {
    const a = await start("a", diskArguments(makeDisk("disk", 1)));
    const ready = new Promise<void>((resolve) => {
      capture(a, "c", { onReady: resolve, go: new Promise(() => undefined) }).catch(() => undefined);
    });
    await ready;
    // A reader that was too late on a busy machine begins no sink, throws all away and holds nothing.
    const held = existsSync(at("c.ram"));
    await a.driver.close();
    const second = new QemuSession({ vm: "a", host: "here", dial: [], qmp: at("a.second"), channel: "" });
    // Less than the reader's own patience.
    await abandonCapture(second, at("c.gate"), AbortSignal.timeout(30_000));
    await second.close();
    await expectUntouched(a);
    if (held) await written(at("c.ram"));
    expect(existsSync(at("c.ram")) ? statSync(at("c.ram")).size : 0).toBe(0);
  });

  it("of a raw disk is a whole copy, and a read-only disk is left out", async () => {
    tool("qemu-img", "create", "-q", "-f", "raw", at("raw"), "8M");
    tool("qemu-io", "-f", "raw", "-c", "write -q -P 4 1M 1M", at("raw"));
    const a = await start("a", [
      ...diskArguments(at("raw"), "raw"),
      ...["-drive", `file=${makeDisk("layer", 1)},format=qcow2,if=none,id=layer,readonly=on`],
      ...["-device", "virtio-blk-pci,drive=layer"],
    ]);
    await capture(a, "c");
    expectBytes(at("c.root"), 4, "1M", "1M", "raw");
    expect(statSync(at("c.root")).size).toBe(8 * 2 ** 20);
  });

  it("of a disk given by -blockdev goes by the node's name", async () => {
    const image = makeDisk("disk", 1);
    const qemu = await start("a", [
      ...["-blockdev", `driver=file,node-name=file0,filename=${image},locking=off`],
      ...["-blockdev", "driver=qcow2,node-name=disk0,file=file0"],
      ...["-device", "virtio-blk-pci,drive=disk0,id=vd0"],
    ]);
    await capture(qemu, "cut");
    expectBytes(at("cut.disk0"), 1, "0", "1M");
    await expectUntouched(qemu);
  });

  it("does not load into a VM that runs, nor when it is damaged", async () => {
    const a = await start("a", diskArguments(makeDisk("disk", 1)));
    await capture(a, "c");
    await expect(a.driver.restore(`cat ${at("c.ram")}`, soon())).rejects.toMatchObject({ exit: "refused" });
    const b = await start("b", [...diskArguments(at("c.root")), "-incoming", "defer"]);
    const half = `head -c ${Math.floor(statSync(at("c.ram")).size / 2)} ${quote(at("c.ram"))}`;
    await expect(b.driver.restore(half, soon())).rejects.toMatchObject({
      exit: expect.stringMatching(/unreachable|rolledBack/),
    });
  });

  it("can be followed by a migration", async () => {
    const a = await start("a", []);
    await capture(a, "c");
    const b = await start("b", ["-incoming", "defer"]);
    await a.driver.migrate({ uri: await b.driver.listen(soon()), signal: soon() });
    await b.driver.resume(soon());
    expect(await statusOf(b)).toBe("running");
  });
});

describe("links", () => {
  let wire: Socket;
  let frames = 0;
  beforeEach(async () => {
    frames = 0;
    wire = createSocket("udp4", () => frames++);
    await new Promise<void>((resolve) => wire.bind(0, "127.0.0.1", resolve));
  });
  afterEach(() => wire.close());

  it("carry nothing while they are down, let the VM announce itself when they are up, and stay down in a capture", async () => {
    const { port } = wire.address();
    const nic = [
      ...["-netdev", `socket,id=management,udp=127.0.0.1:${port},localaddr=127.0.0.1:0`],
      ...["-device", "virtio-net-pci,netdev=management,mac=52:54:00:77:00:01,romfile="],
    ];
    const settle = () => sleep(1500);
    const links = async ({ driver }: Awaited<ReturnType<typeof start>>, up: boolean) => {
      const nics = await driver.nics(soon());
      expect(nics).toEqual(["management"]);
      await driver.setLinks(nics, up, soon());
    };
    const a = await start("a", nic);
    await links(a, false);
    await monitor(a, "announce_self");
    await settle();
    expect(frames).toBe(0);
    await capture(a, "c");
    await links(a, true);
    await a.driver.announce(soon());
    await settle();
    expect(frames).toBeGreaterThan(0);
    await a.driver.quit(soon());

    const b = await start("b", [...nic, "-incoming", "defer"]);
    await b.driver.restore(`cat ${at("c.ram")}`, soon());
    await b.driver.resume(soon());
    frames = 0;
    await monitor(b, "announce_self");
    await settle();
    expect(frames).toBe(0);
    await links(b, true);
    await b.driver.announce(soon());
    await settle();
    expect(frames).toBeGreaterThan(0);
  });
});
