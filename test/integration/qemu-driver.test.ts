/** The driver against real QEMUs under TCG; no guest is needed for what is tested here. */
import { createServer, type Server } from "node:net";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Card } from "../../src/controller/cluster-file.js";
import { SymvirtError } from "../../src/errors.js";
import type { MigrationProgress } from "../../src/vmm/driver.js";
import { SETTLE_MS } from "../../src/vmm/qemu/detach.js";
import { type EmptyQemu, freePort, QemuNest } from "../support/empty-qemu.js";

const soon = () => AbortSignal.timeout(15_000);
/** Slow enough that pre-copy of the empty machine lasts many seconds. */
const SLOW = 20_000;

let nest: QemuNest;
beforeEach(() => {
  nest = new QemuNest();
});
afterEach(() => nest.end());

async function rejection(promise: Promise<unknown>): Promise<SymvirtError> {
  const error = await promise.then(
    (value) => new Error(`resolved: ${JSON.stringify(value)}`),
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(SymvirtError);
  return error as SymvirtError;
}

const statusOf = async (qemu: EmptyQemu) => (await qemu.driver.inspect(soon())).status;

describe("inspect", () => {
  it("knows a card by its tag too, on whatever port it sits", async () => {
    const a = await nest.start("a", [
      ...["-device", "pcie-root-port,id=rp1,chassis=2,slot=2", "-device", "e1000e,id=hca0,bus=rp1"],
    ]);
    expect((await a.driver.inspect(soon())).cards).toEqual(["hca0"]);
  });

  it("tells status, exact machine type, cards, blockers, version and memory", async () => {
    const a = await nest.start("a", ["-machine", "pc-q35-7.1", "-device", "nvme,id=hca0,bus=rp0,serial=s"]);
    expect(await a.driver.inspect(soon())).toEqual({
      status: "running",
      machine: "pc-q35-7.1",
      cards: ["hca0"],
      blockers: [expect.stringContaining("nvme")],
      vmmVersion: expect.stringMatching(/^\d+\.\d+\.\d+$/),
      memoryBytes: 64 * 2 ** 20,
      migration: "none",
    });
  });

  it("lists no device of a bus the cluster file does not name", async () => {
    const a = await nest.start("a", [
      ...["-device", "pcie-root-port,id=other,chassis=2,slot=2", "-device", "e1000e,id=nic,bus=other"],
    ]);
    expect((await a.driver.inspect(soon())).cards).toEqual([]);
  });

  it("says unreachable, with VM, host and socket, once the QEMU has ended", async () => {
    const a = await nest.start("a");
    await a.kill();
    const error = await rejection(a.driver.inspect(soon()));
    expect(error.exit).toBe("unreachable");
    for (const word of ["a on here", a.qmp]) expect(error.message).toContain(word);
    expect(error.hint).toBeTruthy();
  });
});

describe("cards", () => {
  const card: Card = { driver: "e1000e", options: { mac: "52:54:00:00:00:0A" }, identity: {} };

  it("attaches, takes the same card again as done, and refuses another one under the same tag", async () => {
    const a = await nest.start("a");
    await a.driver.attach("hca0", "rp0", card, soon());
    expect((await a.driver.inspect(soon())).cards).toEqual(["hca0"]);
    await a.driver.attach("hca0", "rp0", card, soon());
    const otherMac = { ...card, options: { mac: "52:54:00:00:00:0b" } };
    const mac = await rejection(a.driver.attach("hca0", "rp0", otherMac, soon()));
    expect(mac.message).toMatch(/its mac is "52:54:00:00:00:0a", not "52:54:00:00:00:0b"/i);
    const kind = await rejection(a.driver.attach("hca0", "rp0", { ...card, driver: "e1000" }, soon()));
    expect(kind.message).toContain("it is a e1000e, not a e1000");
  });

  it("refuses an occupied bus, an unknown bus and an unknown driver, with the reason", async () => {
    const a = await nest.start("a", ["-device", "e1000e,id=hca0,bus=rp0"]);
    const occupied = await rejection(a.driver.attach("hca1", "rp0", card, soon()));
    expect(occupied.message).toContain("occupied by hca0 (e1000e)");
    const bus = await rejection(a.driver.attach("hca1", "rp7", card, soon()));
    expect(bus.message).toContain("Bus 'rp7' not found");
    await a.kill();
    const b = await nest.start("b");
    const driver = await rejection(b.driver.attach("hca1", "rp0", { ...card, driver: "e9999" }, soon()));
    expect(driver.message).toContain("'e9999' is not a valid device model name");
    expect((await b.driver.inspect(soon())).cards).toEqual([]);
  });

  it("detaches an absent card at once, and says precisely that a present one stays when no guest helps", async () => {
    const a = await nest.start("a");
    await a.driver.detach("hca0", soon());
    await a.driver.attach("hca0", "rp0", card, soon());
    const began = Date.now();
    const error = await rejection(a.driver.detach("hca0", AbortSignal.timeout(400)));
    // The deadline, and the settling of a request that QEMU has taken.
    expect(Date.now() - began).toBeGreaterThanOrEqual(SETTLE_MS);
    expect(Date.now() - began).toBeLessThan(SETTLE_MS + 10_000);
    expect(error.exit).toBe("deadline");
    expect(error.message).toMatch(
      /^detach: hca0 of a on here still present after 0\.\d s; last refusal: none, QEMU took/,
    );
    expect((await a.driver.inspect(soon())).cards).toEqual(["hca0"]);
  });

  it("quotes QEMU's refusal in the error of a detach that ran out of time", async () => {
    const a = await nest.start("a", ["-S"]); // a stopped clock: QEMU never forgets the first request
    await a.driver.attach("hca0", "rp0", card, soon());
    await rejection(a.driver.detach("hca0", AbortSignal.timeout(200)));
    const error = await rejection(a.driver.detach("hca0", AbortSignal.timeout(600)));
    expect(error.message).toContain("already in the process of unplug");
  });
});

describe("migrate", () => {
  it("moves the VM, paused until resumed there, with progress, totals and downtime; and on again", async () => {
    const a = await nest.start("a");
    const b = await nest.start("b", ["-incoming", "defer"]);
    const uri = await b.driver.listen(soon());
    expect(await b.driver.listen(soon())).toBe(uri); // repeated after a lost reply, say
    const seen: MigrationProgress[] = [];
    const done = await a.driver.migrate({
      uri,
      maxDowntimeMs: 300,
      bandwidthBytesPerSecond: 1_000_000,
      onProgress: (progress) => seen.push(progress),
      signal: soon(),
    });
    expect(done.status).toBe("completed");
    expect(done.transferred).toBeGreaterThan(100_000);
    expect(done.total).toBeGreaterThanOrEqual(64 * 2 ** 20);
    expect(done.downtimeMs).toBeLessThan(2_000);
    expect(done.totalMs).toBeGreaterThan(0);
    expect(seen.some((progress) => progress.status === "active")).toBe(true);

    expect(await statusOf(a)).toBe("postmigrate");
    expect(await statusOf(b)).toMatch(/^(paused|inmigrate)$/);
    expect((await rejection(a.driver.resume(soon()))).message).toContain("has been migrated away");
    expect(await a.driver.cancelMigration(soon())).toBe("moved");
    await b.driver.resume(soon());
    expect(await statusOf(b)).toBe("running");
    await a.driver.quit(soon());

    // The arrival at b has left "completed" behind there: it must not be taken for a departure.
    expect(await b.driver.cancelMigration(soon())).toBe("runs-here");
    const c = await nest.start("c", ["-incoming", "defer"]);
    await b.driver.migrate({ uri: await c.driver.listen(soon()), signal: soon() });
    await c.driver.resume(soon());
    expect([await statusOf(b), await statusOf(c)]).toEqual(["postmigrate", "running"]);
  });

  it("can take a moved VM back when the caller knows that the destination never ran it", async () => {
    const a = await nest.start("a");
    const b = await nest.start("b", ["-incoming", "defer"]);
    await a.driver.migrate({ uri: await b.driver.listen(soon()), signal: soon() });
    await b.driver.quit(soon());
    await a.driver.resume(soon(), { evenIfMoved: true });
    expect(await statusOf(a)).toBe("running");
  });

  it("to a dead port rejects at once with QEMU's reason, and the source runs", async () => {
    const a = await nest.start("a");
    const began = Date.now();
    const error = await rejection(
      a.driver.migrate({ uri: `tcp:127.0.0.1:${await freePort()}`, signal: soon() }),
    );
    expect(error.message).toContain("Connection refused");
    expect(Date.now() - began).toBeLessThan(3_000);
    expect(await statusOf(a)).toBe("running");
  });

  it("rejects when the destination is killed in pre-copy, and the source runs and can try again", async () => {
    const a = await nest.start("a");
    const b = await nest.start("b", ["-incoming", "defer"]);
    let killed = 0;
    const kill = (progress: MigrationProgress) => {
      if (killed !== 0 || progress.status !== "active") return;
      killed = Date.now();
      process.kill(b.pid, "SIGKILL");
    };
    const migration = a.driver.migrate({
      uri: await b.driver.listen(soon()),
      bandwidthBytesPerSecond: SLOW,
      onProgress: kill,
      signal: soon(),
    });
    const error = await rejection(migration);
    expect(killed).toBeGreaterThan(0);
    expect(Date.now() - killed).toBeLessThan(5_000);
    expect(error.exit).toBe("rolledBack");
    expect(await statusOf(a)).toBe("running");

    const c = await nest.start("c", ["-incoming", "defer"]);
    await a.driver.migrate({
      uri: await c.driver.listen(soon()),
      bandwidthBytesPerSecond: 100_000_000,
      signal: soon(),
    });
    await c.driver.resume(soon());
    expect(await statusOf(c)).toBe("running");
  });

  it("rejects when the destination refuses the stream, and the source runs", async () => {
    const a = await nest.start("a", ["-device", "e1000e,id=hca0,bus=rp0"]);
    const b = await nest.start("b", ["-incoming", "defer"]); // has not the card: cannot load the state
    const error = await rejection(a.driver.migrate({ uri: await b.driver.listen(soon()), signal: soon() }));
    expect(error.exit).toBe("rolledBack");
    expect(await statusOf(a)).toBe("running");
  });

  it("cancels on abort in pre-copy, and the source runs; a deadline says so", async () => {
    const a = await nest.start("a");
    const b = await nest.start("b", ["-incoming", "defer"]);
    const abort = new AbortController();
    const migration = a.driver.migrate({
      uri: await b.driver.listen(soon()),
      bandwidthBytesPerSecond: SLOW,
      onProgress: (progress) => {
        if (progress.status === "active") abort.abort(new SymvirtError("interrupted", "asked to abort"));
      },
      signal: abort.signal,
    });
    const error = await rejection(migration);
    expect(error.exit).toBe("interrupted");
    expect(error.message).toContain("asked to abort");
    const facts = await a.driver.inspect(soon());
    expect([facts.status, facts.migration]).toEqual(["running", "cancelled"]);

    const c = await nest.start("c", ["-incoming", "defer"]);
    const late = await rejection(
      a.driver.migrate({
        uri: await c.driver.listen(soon()),
        bandwidthBytesPerSecond: SLOW,
        signal: AbortSignal.timeout(500),
      }),
    );
    expect(late.exit).toBe("deadline");
    expect(await statusOf(a)).toBe("running");
  });

  it("lets a second controller cancel what a first one left behind", async () => {
    const a = await nest.start("a");
    const b = await nest.start("b", ["-incoming", "defer"]);
    const uri = await b.driver.listen(soon());
    await a.driver.close();
    const first = a.session();
    await first.execute("migrate-set-parameters", { "max-bandwidth": SLOW }, soon());
    await first.execute("migrate", { uri }, soon());
    await first.close();
    expect((await rejection(a.driver.migrate({ uri, signal: soon() }))).exit).toBe("refused");
    expect(await a.driver.cancelMigration(soon())).toBe("runs-here");
    const facts = await a.driver.inspect(soon());
    expect([facts.status, facts.migration]).toEqual(["running", "cancelled"]);
  });

  it("is refused by QEMU with the blocker's name while an unmigratable card is plugged in", async () => {
    const a = await nest.start("a", ["-device", "nvme,id=hca0,bus=rp0,serial=s"]);
    const error = await rejection(
      a.driver.migrate({ uri: `tcp:127.0.0.1:${await freePort()}`, signal: soon() }),
    );
    expect(error.exit).toBe("refused");
    expect(error.message).toContain("nvme");
    expect(await statusOf(a)).toBe("running");
  });

  // Whenever the abort comes, exactly one side has the VM, and the promise tells which.
  it("settles the race of abort and completion", async () => {
    for (const delay of [0, 25, 50, 70, 90, 110, 140, 180]) {
      const a = await nest.start(`a${delay}`);
      const b = await nest.start(`b${delay}`, ["-incoming", "defer"]);
      const abort = new AbortController();
      const migration = a.driver.migrate({ uri: await b.driver.listen(soon()), signal: abort.signal });
      const timer = setTimeout(() => abort.abort(), delay);
      const moved = await migration.then(
        () => true,
        () => false,
      );
      clearTimeout(timer);
      if (moved) await b.driver.resume(soon());
      expect(await statusOf(a)).toBe(moved ? "postmigrate" : "running");
      // A destination has often loaded everything by then: only being paused keeps the VM from running twice.
      if (!moved) expect(await statusOf(b).catch(() => "ended")).not.toBe("running");
      await a.driver.quit(soon());
      await b.driver.quit(soon());
    }
  });
});

describe("listen", () => {
  let busy: Server | undefined;
  afterEach(() => {
    busy?.close();
    busy = undefined;
  });

  it("takes the next port when one is in use, and says so when none is left", async () => {
    const server = createServer();
    busy = server;
    const port = await freePort();
    await new Promise<void>((resolve) => server.listen(port, "127.0.0.1", resolve));
    const b = await nest.start("b", ["-incoming", "defer"], { from: port, to: port });
    const error = await rejection(b.driver.listen(soon()));
    expect(error.message).toContain(`no free port from ${port} to ${port}`);
    expect(error.hint).toContain("ports");
    const c = await nest.start("c", ["-incoming", "defer"], { from: port, to: port + 20 });
    const uri = await c.driver.listen(soon());
    expect(Number(uri.split(":").at(-1))).toBeGreaterThan(port);
  });

  it("refuses a QEMU that was not started as a destination", async () => {
    const a = await nest.start("a");
    const error = await rejection(a.driver.listen(soon()));
    expect(error.exit).toBe("refused");
    expect(error.hint).toContain("-incoming defer");
  });
});

describe("quit", () => {
  it("ends the process, and is idempotent", async () => {
    const a = await nest.start("a");
    await a.driver.quit(soon());
    expect(() => process.kill(a.pid, 0)).toThrow();
    await a.driver.quit(soon());
  });
});
