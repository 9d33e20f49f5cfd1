/** Every command, argument, reply member and event we use, against the schema of the QEMU installed. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { z } from "zod";
import { qmpCommands, qmpEvents } from "../../src/vmm/qemu/qmp-types.js";
import { QemuNest } from "../support/empty-qemu.js";
import { QmpSchema } from "../support/qmp-schema.js";

const nest = new QemuNest();
let schema: QmpSchema;

beforeAll(async () => {
  const qemu = await nest.start("schema", ["-S"]);
  await qemu.driver.close();
  const session = qemu.session();
  schema = new QmpSchema(await session.execute("query-qmp-schema", {}, AbortSignal.timeout(10_000)));
  await session.close();
});
afterAll(() => nest.end());

describe("query-qmp-schema", () => {
  it.each(Object.entries(qmpCommands))("agrees about %s", (name, { args, reply }) => {
    expect(schema.check(name, { args, reply })).toEqual([]);
  });

  it.each(Object.entries(qmpEvents))("agrees about the event %s", (name, data) => {
    expect(schema.check(name, { data })).toEqual([]);
  });

  it("would notice: unknown names, wrong types, missing and unreliable members", () => {
    const none = z.strictObject({});
    const cases: [string, Parameters<QmpSchema["check"]>[1], RegExp][] = [
      ["query-nothing", {}, /unknown to this QEMU/],
      [
        "blockdev-reopen",
        { args: z.strictObject({ options: z.array(z.object({ "node-name": z.string() })) }) },
        /options\[\]: mandatory argument driver/,
      ],
      ["device_del", { args: z.strictObject({ id: z.string(), force: z.boolean() }) }, /no argument force/],
      ["device_del", { args: none }, /mandatory argument id/],
      ["device_del", { args: z.strictObject({ id: z.number() }) }, /is string, not number/],
      ["query-status", { reply: z.object({ state: z.string() }) }, /no member state/],
      ["query-status", { reply: z.object({ running: z.string() }) }, /is boolean, not string/],
      ["query-migrate", { reply: z.object({ status: z.string() }) }, /optional in QEMU, relied on/],
      ["query-migrate", { reply: z.array(z.unknown()) }, /not an array/],
      ["DEVICE_DELETED", { data: z.object({ device: z.string() }) }, /optional in QEMU, relied on/],
    ];
    for (const [name, ours, problem] of cases) expect(schema.check(name, ours).join()).toMatch(problem);
  });
});
