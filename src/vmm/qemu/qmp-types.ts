/**
 * The QMP commands and events symvirt uses: arguments (strict: a misspelt one is our mistake) and
 * replies (loose: newer QEMUs add members). Only members that are read are listed. An integration test
 * holds every name, type and optionality here against the `query-qmp-schema` of the QEMU installed.
 *
 * Units are QEMU's: memory and bandwidth in bytes (per second), times in milliseconds.
 */
import { z } from "zod";

const none = z.strictObject({});
/** Commands that return nothing answer `{}`. */
const nothing = z.object({});
const count = z.number().min(0);

const migrationStats = z.object({
  transferred: count,
  remaining: count,
  total: count,
  /** Pages a second. */
  "dirty-pages-rate": count,
  /** Bytes of one such page. */
  "page-size": count,
  /** Megabits (10^6) a second. */
  mbps: count,
});

const capability = z.object({ capability: z.string(), state: z.boolean() });

export const qmpCommands = {
  // session and introspection
  qmp_capabilities: { args: none, reply: nothing },
  "query-version": {
    args: none,
    reply: z.object({
      qemu: z.object({ major: count, minor: count, micro: count }),
      package: z.string(),
    }),
  },
  "query-qmp-schema": { args: none, reply: z.array(z.looseObject({ name: z.string() })) },
  "query-kvm": { args: none, reply: z.object({ enabled: z.boolean(), present: z.boolean() }) },
  "query-machines": {
    args: none,
    reply: z.array(z.object({ name: z.string(), alias: z.string().optional() })),
  },

  // run state
  "query-status": { args: none, reply: z.object({ status: z.string(), running: z.boolean() }) },
  stop: { args: none, reply: nothing },
  cont: { args: none, reply: nothing },
  quit: { args: none, reply: nothing },
  /** Writes a piece of the guest's physical memory into a file of the host. */
  pmemsave: {
    args: z.strictObject({ val: count, size: count, filename: z.string() }),
    reply: nothing,
  },
  "query-memory-size-summary": {
    args: none,
    reply: z.object({ "base-memory": count, "plugged-memory": count.optional() }),
  },

  // devices
  /** Takes the device's own properties besides these; their types are the device's. */
  device_add: {
    args: z.object({ driver: z.string(), id: z.string(), bus: z.string() }).catchall(z.unknown()),
    reply: nothing,
  },
  device_del: { args: z.strictObject({ id: z.string() }), reply: nothing },
  "query-pci": {
    args: none,
    reply: z.array(
      z.object({ bus: count, devices: z.array(z.object({ qdev_id: z.string(), bus: count, slot: count })) }),
    ),
  },
  "qom-list": {
    args: z.strictObject({ path: z.string() }),
    reply: z.array(z.object({ name: z.string(), type: z.string() })),
  },
  "qom-get": { args: z.strictObject({ path: z.string(), property: z.string() }), reply: z.unknown() },
  /** Link state of a NIC or netdev, as the guest sees it. */
  set_link: { args: z.strictObject({ name: z.string(), up: z.boolean() }), reply: nothing },
  "query-chardev": {
    args: none,
    reply: z.array(z.object({ label: z.string(), filename: z.string(), "frontend-open": z.boolean() })),
  },

  /** Makes every NIC tell the network where it is now. */
  "announce-self": {
    args: z.strictObject({ initial: count, max: count, rounds: count, step: count }),
    reply: nothing,
  },

  // disks
  "query-block": {
    args: none,
    reply: z.array(
      z.object({
        device: z.string(),
        qdev: z.string().optional(),
        /** Absent without a medium. */
        inserted: z
          .object({
            "node-name": z.string().optional(),
            ro: z.boolean(),
            drv: z.string(),
            image: z.object({
              filename: z.string(),
              "virtual-size": count,
              "actual-size": count.optional(),
              "backing-filename": z.string().optional(),
              "full-backing-filename": z.string().optional(),
              "backing-filename-format": z.string().optional(),
            }),
          })
          .optional(),
      }),
    ),
  },
  /** Makes an image; a job. The options depend on the driver. */
  "blockdev-create": {
    args: z.strictObject({
      "job-id": z.string(),
      options: z.object({ driver: z.string() }).catchall(z.unknown()),
    }),
    reply: nothing,
  },
  /** The options depend on the driver. */
  "blockdev-add": {
    args: z.object({ driver: z.string(), "node-name": z.string() }).catchall(z.unknown()),
    reply: nothing,
  },
  /** Gives an open image other options. As for `blockdev-add`, all of them are told. */
  "blockdev-reopen": {
    args: z.strictObject({
      options: z.array(z.object({ driver: z.string(), "node-name": z.string() }).catchall(z.unknown())),
    }),
    reply: nothing,
  },
  "blockdev-del": { args: z.strictObject({ "node-name": z.string() }), reply: nothing },
  /** Copies what the disk holds at the moment it begins; a later write of the guest waits until the old is copied. */
  "blockdev-backup": {
    args: z.strictObject({
      "job-id": z.string(),
      device: z.string(),
      target: z.string(),
      sync: z.enum(["top", "full"]),
      /** Bytes per second. */
      speed: count.optional(),
      "auto-dismiss": z.boolean(),
    }),
    reply: nothing,
  },
  /** 0: as fast as it goes. */
  "block-job-set-speed": { args: z.strictObject({ device: z.string(), speed: count }), reply: nothing },
  /** QEMU's own snapshot of memory and disks into a qcow2 image; the VM stands still meanwhile. Only measured. */
  "snapshot-save": {
    args: z.strictObject({
      "job-id": z.string(),
      tag: z.string(),
      vmstate: z.string(),
      devices: z.array(z.string()),
    }),
    reply: nothing,
  },
  "snapshot-delete": {
    args: z.strictObject({ "job-id": z.string(), tag: z.string(), devices: z.array(z.string()) }),
    reply: nothing,
  },
  "query-named-block-nodes": {
    args: z.strictObject({ flat: z.boolean() }),
    reply: z.array(z.object({ "node-name": z.string().optional() })),
  },
  "query-jobs": {
    args: none,
    reply: z.array(z.object({ id: z.string(), status: z.string(), error: z.string().optional() })),
  },
  "job-cancel": { args: z.strictObject({ id: z.string() }), reply: nothing },
  "job-dismiss": { args: z.strictObject({ id: z.string() }), reply: nothing },

  // migration
  migrate: { args: z.strictObject({ uri: z.string() }), reply: nothing },
  "migrate-incoming": { args: z.strictObject({ uri: z.string() }), reply: nothing },
  migrate_cancel: { args: none, reply: nothing },
  "migrate-set-parameters": {
    args: z.strictObject({
      /** Bytes per second. */
      "max-bandwidth": count.optional(),
      /** Milliseconds the VM may be stopped at the end of pre-copy. */
      "downtime-limit": count.optional(),
    }),
    reply: nothing,
  },
  "query-migrate-parameters": {
    args: none,
    reply: z.object({ "max-bandwidth": count.optional(), "downtime-limit": count.optional() }),
  },
  "migrate-set-capabilities": {
    args: z.strictObject({ capabilities: z.array(capability) }),
    reply: nothing,
  },
  "query-migrate-capabilities": { args: none, reply: z.array(capability) },
  "query-migrate": {
    args: none,
    reply: z.object({
      /** Absent before the first migration. */
      status: z.string().optional(),
      ram: migrationStats.optional(),
      "total-time": count.optional(),
      downtime: count.optional(),
      "setup-time": count.optional(),
      "error-desc": z.string().optional(),
      "blocked-reasons": z.array(z.string()).optional(),
      /** Where a destination listens. */
      "socket-address": z
        .array(z.object({ type: z.string(), host: z.string().optional(), port: z.string().optional() }))
        .optional(),
    }),
  },
} as const;

export type QmpCommandName = keyof typeof qmpCommands;
export type QmpArguments<C extends QmpCommandName> = z.input<(typeof qmpCommands)[C]["args"]>;
export type QmpReply<C extends QmpCommandName> = z.output<(typeof qmpCommands)[C]["reply"]>;
export type QueryMigrate = QmpReply<"query-migrate">;

export const qmpEvents = {
  /** `device` is absent for a device without id. */
  DEVICE_DELETED: z.object({ device: z.string().optional(), path: z.string() }),
  DEVICE_UNPLUG_GUEST_ERROR: z.object({ device: z.string().optional(), path: z.string() }),
  MIGRATION: z.object({ status: z.string() }),
  STOP: z.object({}),
  RESUME: z.object({}),
  SHUTDOWN: z.object({ guest: z.boolean(), reason: z.string() }),
  JOB_STATUS_CHANGE: z.object({ id: z.string(), status: z.string() }),
  /** The guest opened or closed a virtio-serial port. */
  VSERPORT_CHANGE: z.object({ id: z.string(), open: z.boolean() }),
} as const;

export type QmpEventName = keyof typeof qmpEvents;
export type QmpEventData<E extends QmpEventName> = z.output<(typeof qmpEvents)[E]>;

/** `status` values of query-migrate after which a migration changes no more. */
export const finalMigrationStates: ReadonlySet<string> = new Set(["completed", "failed", "cancelled"]);

/** First line from QEMU. */
export const qmpGreeting = z.object({
  QMP: z.object({
    version: qmpCommands["query-version"].reply,
    capabilities: z.array(z.unknown()),
  }),
});

const id = z.union([z.string(), z.number()]);
/** Every later line is one of these. */
export const qmpReturn = z.object({ return: z.unknown(), id: id.optional() });
export const qmpError = z.object({
  error: z.object({ class: z.string(), desc: z.string() }),
  id: id.optional(),
});
export const qmpEvent = z.object({ event: z.string(), data: z.unknown().optional() });
