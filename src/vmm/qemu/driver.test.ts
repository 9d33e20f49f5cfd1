/** What the driver makes of a QEMU's answers, also of those a real one gives only seldom. */
import { afterEach, describe, expect, it } from "vitest";
import { type Answer, FakeQmp, type FakeQmpOptions } from "../../../test/support/fake-qmp.js";
import { type Card, clusterFile } from "../../controller/cluster-file.js";
import { SymvirtError } from "../../errors.js";
import { openQemuDriver, QemuDriver } from "./driver.js";
import { canonical } from "./qom-cards.js";

const soon = () => AbortSignal.timeout(5_000);
const done = (value: unknown = {}): Answer => ({ return: value });
const refusal = (desc: string, errorClass = "GenericError"): Answer => ({
  error: { class: errorClass, desc },
});
const deleted = (device: string) => ({
  event: "DEVICE_DELETED",
  data: { device, path: `/machine/peripheral/${device}` },
});

let fake: FakeQmp;
let driver: QemuDriver;
let ended = 0;

async function start(options: FakeQmpOptions, address = "127.0.0.1"): Promise<void> {
  fake = await FakeQmp.start(options);
  ended = 0;
  driver = new QemuDriver({
    target: { vm: "vm1", host: "h1", dial: [], qmp: fake.path, channel: `${fake.path}.channel` },
    cards: new Map([["hca0", "rp0"]]),
    listen: { address, ports: { from: 5000, to: 5002 } },
    end: () => {
      ended++;
      return Promise.resolve();
    },
  });
}

afterEach(async () => {
  await driver.close();
  await fake.end();
  expect(fake.faults).toEqual([]);
  expect(fake.left).toEqual([]);
});

async function failure(promise: Promise<unknown>): Promise<SymvirtError> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(SymvirtError);
  return error as SymvirtError;
}

/** Answers qom-list: the card is there while `present` says so. */
const peripherals = (present: () => boolean) => ({
  "qom-list": () => done(present() ? [{ name: "hca0", type: "child<e1000e>" }] : []),
});

describe("detach", () => {
  it("asks again, later and later, while QEMU is busy, and ends with the event", async () => {
    const busy = refusal("Hot-unplug failed: guest is busy (power indicator blinking)");
    await start({
      script: [
        { execute: "device_del", arguments: { id: "hca0" }, answer: busy },
        { execute: "device_del", answer: busy },
        { execute: "device_del", events: [deleted("hca9"), deleted("hca0")] },
      ],
      standing: peripherals(() => true),
    });
    const began = Date.now();
    await driver.detach("hca0", soon());
    expect(Date.now() - began).toBeGreaterThanOrEqual(700); // 250 + 500 ms of back-off
  });

  it("does not press the button again while the guest lets go, and believes the object tree", async () => {
    let polls = 0;
    await start({
      script: [{ execute: "device_del" }],
      standing: peripherals(() => ++polls < 5),
    });
    await driver.detach("hca0", soon());
    expect(fake.received.filter((name) => name === "device_del")).toHaveLength(1);
  });

  it("takes DeviceNotFound for gone", async () => {
    let asked = false;
    await start({
      script: [{ execute: "device_del", answer: refusal("Device 'hca0' not found", "DeviceNotFound") }],
      standing: peripherals(() => {
        const present = !asked;
        asked = true;
        return present;
      }),
    });
    await driver.detach("hca0", soon());
  });

  it("asks again when the guest refused, and quotes the last refusal at the deadline", async () => {
    const guestError = {
      event: "DEVICE_UNPLUG_GUEST_ERROR",
      data: { device: "hca0", path: "/machine/peripheral/hca0" },
    };
    await start({
      script: [
        { execute: "device_del", events: [guestError] },
        { execute: "device_del", answer: refusal("Device hca0 is already in the process of unplug") },
      ],
      standing: peripherals(() => true),
    });
    const error = await failure(driver.detach("hca0", AbortSignal.timeout(600)));
    expect(error.exit).toBe("deadline");
    expect(error.message).toMatch(
      /^detach: hca0 of vm1 on h1 still present after 0\.\d s; last refusal: Device hca0 is already in/,
    );
  });

  it("given up after QEMU took the request, ends only when the guest has let go", async () => {
    let gone = false;
    await start({ script: [{ execute: "device_del" }], standing: peripherals(() => !gone) });
    const giveUp = new AbortController();
    const began = Date.now();
    setTimeout(() => giveUp.abort(), 100);
    setTimeout(() => {
      gone = true;
    }, 900);
    const error = await failure(driver.detach("hca0", giveUp.signal));
    expect(error.message).toBe("detach of hca0: taken out: interrupted");
    expect(Date.now() - began).toBeGreaterThanOrEqual(900);
  });

  it("says unreachable, not deadline, when the QEMU ends in the middle", async () => {
    await start({
      script: [{ execute: "device_del", answer: { hangUp: true } }],
      standing: peripherals(() => true),
    });
    expect((await failure(driver.detach("hca0", soon()))).exit).toBe("unreachable");
  });
});

describe("attach", () => {
  const card: Card = { driver: "vfio-pci", options: { host: "01:00.0" }, identity: {} };
  const tree = (found: Record<string, unknown>) => ({
    "qom-list": (args: unknown) =>
      done(
        (args as { path: string }).path === "/machine/peripheral"
          ? [
              { name: "type", type: "string" },
              { name: "hca0", type: "child<vfio-pci>" },
            ]
          : [],
      ),
    "qom-get": (args: unknown) => {
      const value = found[(args as { property: string }).property];
      return value === undefined ? refusal("Property not found") : done(value);
    },
  });
  const bus = "/machine/peripheral/rp0/rp0";

  it("knows the same card by another spelling of its address", async () => {
    await start({ standing: tree({ parent_bus: bus, host: "0000:01:00.0" }) });
    await driver.attach("hca0", "rp0", card, soon());
  });

  it.each([
    ["another address", { parent_bus: bus, host: "0000:02:00.0" }, 'its host is "0000:02:00.0"'],
    ["another bus", { parent_bus: "/machine/peripheral/rp1/rp1", host: "0000:01:00.0" }, "on bus rp1"],
    ["a property it cannot read", { parent_bus: bus }, "its host cannot be read"],
  ])("refuses %s under the same tag", async (_name, found, words) => {
    await start({ standing: tree(found) });
    expect((await failure(driver.attach("hca0", "rp0", card, soon()))).message).toContain(words);
  });

  it("does not let a card's options set the id or the bus", async () => {
    await start({});
    const error = await failure(driver.attach("hca0", "rp0", { ...card, options: { bus: "rp7" } }, soon()));
    expect(error.message).toContain('option "bus" is symvirt\'s');
  });

  it.each([
    [true, "on", true],
    [false, "off", true],
    ["0x10", 16, true],
    ["52:54:00:AA:00:01", "52:54:00:aa:00:01", true],
    ["0000:01:00.0", "01:00.0", true],
    ["nd0", "nd1", false],
    [1, true, false],
  ])("compares %j and %j: %j", (one, other, same) => {
    expect(canonical(one) === canonical(other)).toBe(same);
  });
});

describe("migrate", () => {
  const prologue = {
    "query-migrate-capabilities": () =>
      done([
        { capability: "events", state: false },
        { capability: "return-path", state: false },
      ]),
    "query-status": () => done({ status: "running", running: true }),
  };
  const begin = [
    {
      execute: "migrate-set-capabilities",
      arguments: {
        capabilities: [
          { capability: "events", state: true },
          { capability: "return-path", state: true },
        ],
      },
    },
    { execute: "migrate-set-parameters", arguments: { "max-bandwidth": 1000, "downtime-limit": 200 } },
  ];
  const options = { uri: "tcp:h2:1", bandwidthBytesPerSecond: 1000, maxDowntimeMs: 200 };

  it("dials again when its connection breaks during pre-copy: QEMU goes on without us", async () => {
    let polls = 0;
    await start({
      script: [...begin, { execute: "migrate", arguments: { uri: "tcp:h2:1" } }],
      standing: {
        ...prologue,
        "query-migrate": () => {
          polls++;
          if (polls === 2) return { hangUp: true };
          return done(
            polls < 4 ? { status: "active" } : { status: "completed", downtime: 7, "total-time": 9 },
          );
        },
      },
    });
    expect(await driver.migrate({ ...options, signal: soon() })).toMatchObject({
      status: "completed",
      downtimeMs: 7,
      totalMs: 9,
    });
    expect(fake.connections).toBe(2);
  });

  it("never resumes the source when the abort comes too late", async () => {
    const abort = new AbortController();
    let cancelled = false;
    await start({
      script: [...begin, { execute: "migrate" }, { execute: "migrate_cancel" }],
      standing: {
        ...prologue,
        "query-status": () =>
          done(cancelled ? { status: "postmigrate", running: false } : { status: "running", running: true }),
        "query-migrate": () => {
          const status = cancelled ? "completed" : "device";
          if (abort.signal.aborted) cancelled = true;
          abort.abort();
          return done({ status, downtime: 5, "total-time": 6 });
        },
      },
    });
    const result = await driver.migrate({ ...options, signal: abort.signal });
    expect(result.status).toBe("completed");
    expect(fake.received).not.toContain("cont");
  });

  it("sets QEMU's own limits when none are asked for: those of an earlier migration must not last", async () => {
    const own = { "max-bandwidth": 134217728, "downtime-limit": 300 };
    const [capabilities] = begin;
    await start({
      script: [
        ...(capabilities === undefined ? [] : [capabilities]),
        { execute: "migrate-set-parameters", arguments: own },
        { execute: "migrate" },
      ],
      standing: { ...prologue, "query-migrate": () => done({ status: "completed", downtime: 5 }) },
    });
    const result = await driver.migrate({ uri: "tcp:h2:1", signal: soon() });
    expect(result.status).toBe("completed");
  });

  it("tells how fast memory changes and how fast it is sent", async () => {
    const ram = { transferred: 10, remaining: 20, total: 30, "page-size": 4096 };
    const looks = [
      { status: "active", ram: { ...ram, "dirty-pages-rate": 2560, mbps: 80 } },
      { status: "completed", downtime: 5, ram: { ...ram, "dirty-pages-rate": 0, mbps: 0 } },
    ];
    await start({
      script: [...begin, { execute: "migrate" }],
      standing: { ...prologue, "query-migrate": () => done(looks.length > 1 ? looks.shift() : looks[0]) },
    });
    const seen: [number, number][] = [];
    await driver.migrate({
      ...options,
      signal: soon(),
      onProgress: (p) => seen.push([p.dirtyBytesPerSecond, p.sentBytesPerSecond]),
    });
    expect(seen).toEqual([[10 * 2 ** 20, 10e6]]);
  });

  it.each([true, false])(
    "sets auto-converge to %s, whatever an earlier migration had",
    async (autoConverge) => {
      const known = ["events", "return-path", "auto-converge"].map((capability) => ({
        capability,
        state: true,
      }));
      const capabilities = known.map(({ capability }) => ({
        capability,
        state: capability === "auto-converge" ? autoConverge : true,
      }));
      await start({
        script: [
          { execute: "migrate-set-capabilities", arguments: { capabilities } },
          { execute: "migrate-set-parameters" },
          { execute: "migrate" },
        ],
        standing: {
          ...prologue,
          "query-migrate-capabilities": () => done(known),
          "query-migrate": () => done({ status: "completed", downtime: 5 }),
        },
      });
      await driver.migrate({ ...options, ...(autoConverge ? { autoConverge } : {}), signal: soon() });
      expect(fake.left).toEqual([]);
    },
  );

  it("resumes a source which QEMU left paused after a failure", async () => {
    let status = "running";
    await start({
      script: [...begin, { execute: "migrate" }],
      standing: {
        ...prologue,
        "query-status": () => done({ status, running: status === "running" }),
        "query-migrate": () => {
          if (status === "running") status = "paused";
          return done({ status: "failed", "error-desc": "Broken pipe" });
        },
        cont: () => {
          status = "running";
          return done();
        },
      },
    });
    const error = await failure(driver.migrate({ ...options, signal: soon() }));
    expect(error.exit).toBe("rolledBack");
    expect(error.message).toBe("migration of vm1 on h1 to tcp:h2:1 failed: Broken pipe");
    expect(fake.received).toContain("cont");
  });

  it("leaves a VM paused that was paused before", async () => {
    await start({
      script: [...begin, { execute: "migrate" }],
      standing: {
        ...prologue,
        "query-status": () => done({ status: "paused", running: false }),
        "query-migrate": () => done({ status: "failed" }),
      },
    });
    expect((await failure(driver.migrate({ ...options, signal: soon() }))).exit).toBe("rolledBack");
  });

  it("calls for a person when the source cannot go on", async () => {
    let status = "running";
    await start({
      script: [...begin, { execute: "migrate" }],
      standing: {
        ...prologue,
        "query-status": () => done({ status, running: status === "running" }),
        "query-migrate": () => {
          status = "internal-error";
          return done({ status: "failed", "error-desc": "Broken pipe" });
        },
      },
    });
    const error = await failure(driver.migrate({ ...options, signal: soon() }));
    expect(error.exit).toBe("needsOperator");
    expect(error.message).toMatch(/Broken pipe; and vm1 on h1 could not be brought back: .*internal-error/);
    expect(error.unsettled).toBe(true);
    expect(error.hint).toBeTruthy();
  });
});

describe("listen", () => {
  const inmigrate = { "query-status": () => done({ status: "inmigrate", running: false }) };

  it("makes the VM arrive paused, tries the next port, and brackets an IPv6 address", async () => {
    await start(
      {
        script: [
          { execute: "stop" },
          { execute: "query-migrate", answer: done({}) },
          {
            execute: "migrate-incoming",
            arguments: { uri: "tcp:[fd00::1]:5000" },
            answer: refusal("Failed to find an available port: Address already in use"),
          },
          { execute: "migrate-incoming", arguments: { uri: "tcp:[fd00::1]:5001" } },
        ],
        standing: inmigrate,
      },
      "fd00::1",
    );
    expect(await driver.listen(soon())).toBe("tcp:[fd00::1]:5001");
  });

  it("does not try the whole range for an address the host does not have", async () => {
    await start({
      script: [
        { execute: "stop" },
        { execute: "query-migrate", answer: done({}) },
        { execute: "migrate-incoming", answer: refusal("Cannot assign requested address") },
      ],
      standing: inmigrate,
    });
    const error = await failure(driver.listen(soon()));
    expect(error.message).toContain("tcp:127.0.0.1:5000: Cannot assign requested address");
    expect(error.hint).toContain("host h1");
  });
});

describe("resume", () => {
  it("waits for the arrival to end before it continues the VM", async () => {
    const states = ["inmigrate", "inmigrate", "paused", "paused", "running"];
    await start({
      script: [{ execute: "cont" }],
      standing: {
        "query-status": () => {
          const status = states.length > 1 ? states.shift() : states[0];
          return done({ status, running: status === "running" });
        },
        "query-migrate": () => done({ status: "active" }),
      },
    });
    await driver.resume(soon());
  });

  it("gives up on a VM that did not arrive, and on one that cannot run", async () => {
    let status = "inmigrate";
    await start({
      standing: {
        "query-status": () => done({ status, running: false }),
        "query-migrate": () => done({ status: "failed", "error-desc": "load of migration failed" }),
      },
    });
    const lost = await failure(driver.resume(soon()));
    expect([lost.exit, lost.hint]).toEqual(["needsOperator", "load of migration failed"]);
    status = "guest-panicked";
    expect((await failure(driver.resume(soon()))).message).toContain("guest-panicked");
  });

  it("names the state it waited in at the deadline", async () => {
    await start({
      standing: {
        "query-status": () => done({ status: "inmigrate", running: false }),
        "query-migrate": () => done({ status: "active" }),
      },
    });
    const error = await failure(driver.resume(AbortSignal.timeout(80)));
    expect(error.exit).toBe("deadline");
    expect(error.message).toMatch(/vm1 on h1/);
  });
});

describe("the session", () => {
  const status = { "query-status": () => done({ status: "running", running: true }) };

  it("is one for callers at the same time, also after it was lost: QEMU serves one client", async () => {
    await start({ standing: status });
    await Promise.all([driver.resume(soon()), driver.resume(soon()), driver.resume(soon())]);
    expect(fake.connections).toBe(1);
    fake.hangUp();
    await Promise.allSettled([driver.resume(soon())]); // may still meet the end of the first
    await Promise.all([driver.resume(soon()), driver.resume(soon()), driver.resume(soon())]);
    expect(fake.connections).toBe(2);
  });

  it("lets close end a dial that gets no greeting", async () => {
    await start({ greeting: "" });
    const pending = failure(driver.resume(soon()));
    setTimeout(() => void driver.close(), 50);
    expect((await pending).message).toContain("session closed");
  });
});

describe("end", () => {
  it("keeps what was given up from dialling again", async () => {
    await start({
      script: [{ execute: "query-status", answer: { return: { status: "running", running: true } } }],
    });
    await driver.resume(soon());
    await driver.end();
    expect((await failure(driver.resume(soon()))).message).toContain("its operation has been given up");
    expect(fake.connections).toBe(1);
  });
});

describe("quit", () => {
  it("ends the process by its pid when QMP does not answer", async () => {
    await start({});
    await fake.end();
    await driver.quit(soon());
    expect(ended).toBe(1);
  });

  it("asks QMP first", async () => {
    await start({ script: [{ execute: "quit", answer: { hangUp: true } }] });
    await driver.quit(soon());
    expect(ended).toBe(1);
  });
});

describe("openQemuDriver", () => {
  it("refuses names the cluster file does not have", async () => {
    await start({});
    const cluster = clusterFile.parse({
      version: 1,
      name: "c",
      state: "/nowhere",
      hosts: { h1: { address: "127.0.0.1", runtime: "/nowhere" } },
      vms: { vm1: { host: "h1", command: ["true"] } },
    });
    expect(() => openQemuDriver(cluster, "vm9", "h1")).toThrow(/vm9/);
    expect(() => openQemuDriver(cluster, "vm1", "h9")).toThrow(/h9/);
    const opened = openQemuDriver(cluster, "vm1", "h1");
    const error = await failure(opened.inspect(soon()));
    expect(error.message).toContain("QMP of vm1 on h1 does not answer at /nowhere/vm1.qmp");
  });
});
