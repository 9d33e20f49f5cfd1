import { connect } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import { FakeQmp, type FakeQmpOptions } from "../../../test/support/fake-qmp.js";
import { SymvirtError } from "../../errors.js";
import { QmpClient } from "./qmp-client.js";
import { QmpClosedError, QmpCommandError } from "./qmp-errors.js";
import { MAX_UNREAD_EVENTS } from "./qmp-events.js";

const soon = () => AbortSignal.timeout(3_000);
let fake: FakeQmp;
let client: QmpClient | undefined;

afterEach(async () => {
  client?.close();
  client = undefined;
  await fake.end();
  expect(fake.faults).toEqual([]);
});

async function open(options: FakeQmpOptions, signal = soon()): Promise<QmpClient> {
  fake = await FakeQmp.start(options);
  client = await QmpClient.open(connect(fake.path), { where: "QMP of vm1", signal });
  return client;
}

async function failure(promise: Promise<unknown>): Promise<SymvirtError> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(SymvirtError);
  return error as SymvirtError;
}

describe("negotiation", () => {
  it.each([
    ["garbage", "SSH-2.0-OpenSSH\r\n"],
    ["another greeting", '{"hello":1}\r\n'],
    ["an array", "[]\r\n"],
  ])("refuses %s", async (_name, greeting) => {
    const error = await failure(open({ greeting }));
    expect(error.exit).toBe("unreachable");
    expect(error.message).toMatch(/^QMP of vm1: not QMP: /);
  });

  it("says what may be wrong when no greeting comes", async () => {
    const error = await failure(open({ greeting: "" }, AbortSignal.timeout(50)));
    expect(error.exit).toBe("deadline");
    expect(error.hint).toContain("another QMP client");
  });

  it("fails when the far end hangs up instead", async () => {
    fake = await FakeQmp.start({ greeting: "" });
    const opening = QmpClient.open(connect(fake.path), { where: "QMP of vm1", signal: soon() });
    setTimeout(() => fake.hangUp(), 30);
    expect((await failure(opening)).exit).toBe("unreachable");
  });
});

describe("execute", () => {
  it("sends arguments, validates the reply and passes over members it does not know", async () => {
    const qmp = await open({
      script: [
        {
          execute: "qom-list",
          arguments: { path: "/machine" },
          answer: { return: [{ name: "type", type: "string", "default-value": 1 }] },
        },
        { execute: "query-status", answer: { return: { status: 7 } } },
      ],
    });
    expect(await qmp.execute("qom-list", { path: "/machine" }, soon())).toEqual([
      { name: "type", type: "string" },
    ]);
    const error = await failure(qmp.execute("query-status", {}, soon()));
    expect(error.message).toContain("reply to query-status from QMP of vm1: status:");
  });

  it("turns an error reply into QEMU's own words, and goes on", async () => {
    const qmp = await open({
      script: [
        {
          execute: "device_del",
          answer: { error: { class: "DeviceNotFound", desc: "Device 'hca0' not found" } },
        },
        { execute: "stop" },
      ],
    });
    const error = await failure(qmp.execute("device_del", { id: "hca0" }, soon()));
    expect(error).toBeInstanceOf(QmpCommandError);
    expect((error as QmpCommandError).errorClass).toBe("DeviceNotFound");
    expect(error.message).toBe("QMP of vm1: device_del refused: Device 'hca0' not found");
    await qmp.execute("stop", {}, soon());
  });

  it("has a deadline per command; the late reply is dropped and the session lives", async () => {
    const qmp = await open({
      script: [{ execute: "stop", answer: { silence: true } }, { execute: "cont" }],
    });
    const error = await failure(qmp.execute("stop", {}, AbortSignal.timeout(30)));
    expect(error.exit).toBe("deadline");
    expect(error.message).toContain("no reply to stop");
    fake.send({ return: {}, id: "symvirt-2" }); // the id of the stop
    fake.send({ error: { class: "GenericError", desc: "x" }, id: "nobody" });
    await qmp.execute("cont", {}, soon());
    expect(qmp.unknownReplies).toBe(2);
  });

  it("sends nothing after the signal was aborted", async () => {
    const qmp = await open({});
    await failure(qmp.execute("stop", {}, AbortSignal.abort()));
    expect(fake.received).toEqual([]);
  });

  it("matches replies by id when they come in another order", async () => {
    const qmp = await open({
      script: [
        { execute: "query-status", answer: { silence: true } },
        { execute: "query-kvm", answer: { return: { enabled: true, present: true } } },
      ],
    });
    const status = qmp.execute("query-status", {}, soon());
    expect((await qmp.execute("query-kvm", {}, soon())).enabled).toBe(true);
    fake.send({ return: { status: "running", running: true }, id: "symvirt-2" });
    expect((await status).status).toBe("running");
  });
});

describe("the end of a session", () => {
  it("rejects every pending command and listener when the far end hangs up, and every later one", async () => {
    const qmp = await open({
      script: [
        { execute: "stop", answer: { silence: true } },
        { execute: "cont", answer: { hangUp: true } },
      ],
    });
    const listener = qmp.listen(["STOP"]);
    const next = failure(listener.next(soon(), "STOP"));
    const errors = await Promise.all([
      failure(qmp.execute("stop", {}, soon())),
      failure(qmp.execute("cont", {}, soon())),
      next,
    ]);
    for (const error of [...errors, await failure(qmp.execute("stop", {}, soon()))]) {
      expect(error).toBeInstanceOf(QmpClosedError);
      expect(error.exit).toBe("unreachable");
    }
    expect(qmp.closed).toBe(true);
  });

  it.each([
    ["half a line, then nothing", '{"return": {}, "id"'],
    ["a line that is no JSON", "}{\r\n"],
    ["an error that answers no command", '{"error":{"class":"GenericError","desc":"JSON parse error"}}\r\n'],
    ["a reply without id", '{"return":{}}\r\n'],
    ["neither reply nor event", '{"QMP":{}}\r\n'],
    ["a line of 20 MB", Buffer.alloc(20_000_000, "a")],
  ])("comes with %s", async (name, raw) => {
    const qmp = await open({ script: [{ execute: "stop", answer: { raw } }] });
    const pending = failure(qmp.execute("stop", {}, soon()));
    if (name.startsWith("half")) setTimeout(() => fake.hangUp(), 30);
    expect(await pending).toBeInstanceOf(QmpClosedError);
    expect(qmp.closed).toBe(true);
  });

  it("is idempotent, and the first cause stays", async () => {
    const qmp = await open({ script: [{ execute: "stop", answer: { raw: "garbage\r\n" } }] });
    await failure(qmp.execute("stop", {}, soon()));
    qmp.close();
    qmp.close();
    expect((await failure(qmp.execute("stop", {}, soon()))).message).toContain("not JSON");
  });
});

describe("events", () => {
  it("reach a listener made before the command even when they come before its reply", async () => {
    const qmp = await open({
      script: [
        {
          execute: "device_del",
          events: [
            { event: "RTC_CHANGE", data: { offset: 1 } },
            { event: "DEVICE_DELETED", data: { path: "/machine/peripheral/hca0", device: "hca0" } },
          ],
        },
      ],
    });
    const listener = qmp.listen(["DEVICE_DELETED"]);
    const other = qmp.listen(["STOP"]);
    await qmp.execute("device_del", { id: "hca0" }, soon());
    expect((await listener.next(soon(), "DEVICE_DELETED")).name).toBe("DEVICE_DELETED");
    expect(listener.poll()).toBeUndefined();
    expect(other.poll()).toBeUndefined();
    expect((await failure(listener.next(AbortSignal.timeout(20), "DEVICE_DELETED of hca0"))).message).toBe(
      "DEVICE_DELETED of hca0: deadline passed",
    );
  });

  it("do not pile up without bound when nobody reads them", async () => {
    const qmp = await open({ standing: { stop: () => ({ return: {} }) } });
    const listener = qmp.listen(["STOP"]);
    for (let i = 0; i < MAX_UNREAD_EVENTS + 5; i++) fake.send({ event: "STOP", data: { i } });
    await qmp.execute("stop", {}, soon());
    expect(listener.dropped).toBe(5);
    expect(listener.poll()?.data).toEqual({ i: 5 });
    listener.close();
    expect(listener.poll()).toBeUndefined();
  });
});
