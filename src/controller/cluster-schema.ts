/**
 * The cluster file (YAML): which hosts, VMs and cards there are, and the limits of an operation.
 * docs/operations.md has a commented example; `symvirt lab up` writes one.
 */
import { z } from "zod";
import { strategies } from "./strategy.js";

const name = z
  .string()
  .regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/, "a name: letters, digits, . _ -, at most 63");
const argv = z.array(z.string());
/** What a timer of Node takes, some 24 days; a longer one would fire at once. */
export const LONGEST_MS = 2 ** 31 - 1;

const durationMs = z
  .union([
    z.number().int().min(1),
    z.string().regex(/^\d+(ms|s|m|h)$/, 'a duration such as "30s", "500ms", "2m"'),
  ])
  .transform((v) => {
    if (typeof v === "number") return v;
    const match = /^(\d+)(ms|s|m|h)$/.exec(v);
    const unit = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 }[match?.[2] as "ms" | "s" | "m" | "h"];
    return Number(match?.[1]) * unit;
  })
  .refine((ms) => ms <= LONGEST_MS, "at most 596h");
const bytes = z
  .union([z.number().int().min(1), z.string().regex(/^\d+(k|M|G)?$/, 'bytes such as 1048576, "64M", "1G"')])
  .transform((v) => {
    if (typeof v === "number") return v;
    const match = /^(\d+)(k|M|G)?$/.exec(v);
    const unit = { "": 1, k: 2 ** 10, M: 2 ** 20, G: 2 ** 30 }[(match?.[2] ?? "") as "" | "k" | "M" | "G"];
    return Number(match?.[1]) * unit;
  });

/** What `symvirt serve` does by itself; nothing unless it is here. */
export const policy = z.strictObject({
  reactive: z
    .strictObject({
      /** A checkpoint so often. */
      every: durationMs,
      /** Restarts in a row before a person must look; a new checkpoint begins the count anew. */
      maxRestarts: z.number().int().min(1).max(100).default(3),
      /** Before the second attempt; doubled before each further one. */
      backoff: durationMs.default(60_000),
      /** How often QEMU processes, agents and hosts are looked at. */
      watch: durationMs.default(10_000),
      /** Switches a host off that does not answer, "{host}" replaced; status 0 proves that nothing runs there. */
      fence: argv.min(1).optional(),
    })
    .optional(),
  proactive: z
    .strictObject({
      /** The alert's label that names a host of this file. */
      label: z
        .string()
        .regex(/^[A-Za-z_][A-Za-z0-9_]{0,127}$/, "a label of an alert: letters, digits and _")
        .default("host"),
      /** After an evacuation that did not succeed, before the same alert begins another. */
      backoff: durationMs.default(300_000),
    })
    .optional(),
});
export type Policy = z.infer<typeof policy>;

/** A card a host offers: a device_add of `driver` with `options` (id and bus are the VM's). */
export const card = z.strictObject({
  driver: name,
  options: z.record(z.string(), z.union([z.string(), z.number(), z.boolean()])).default({}),
  /** How the guest recognises it after attach; without it any newly active port counts. */
  identity: z.strictObject({ mac: z.string().optional(), guid: z.string().optional() }).default({}),
});
export type Card = z.infer<typeof card>;

export const host = z.strictObject({
  driver: z.enum(["qemu"]).default("qemu"),
  /** Where other hosts reach this one with a migration stream. */
  address: z.string().min(1),
  /** Put before every command run on that host: [] here, ["ssh", "h2"], ["ip", "netns", "exec", "…"]. */
  run: argv.default([]),
  /** How to reach a unix socket of that host, "{socket}" replaced, e.g. ["ssh","h2","socat","-","UNIX:{socket}"]; [] = directly. */
  dial: argv.default([]),
  /** Folder of that host with its VMs' sockets and pid files. */
  runtime: z.string().startsWith("/"),
  ports: z
    .strictObject({ from: z.number().int().min(1).max(65535), to: z.number().int().min(1).max(65535) })
    .default({ from: 49152, to: 49215 }),
  cards: z.record(name, card).default({}),
});
export type Host = z.infer<typeof host>;

export const vm = z.strictObject({
  /** Where it runs until symvirt has moved it; after that the state folder knows. */
  host: name,
  /**
   * The VMM's command, as it would be started without cards; "{vm}", "{host}", "{runtime}" are replaced.
   * It must daemonize, write "{runtime}/{vm}.pid" and listen on the two sockets below.
   * symvirt adds `-incoming defer` at a destination and `-device` for cards at a cold start.
   */
  command: argv.min(1),
  qmp: z.string().default("{runtime}/{vm}.qmp"),
  channel: z.string().default("{runtime}/{vm}.channel"),
  pidfile: z.string().default("{runtime}/{vm}.pid"),
  /** By tag: the root port it is plugged into, and the card of the first host it starts with. */
  cards: z.record(name, z.strictObject({ bus: z.string().min(1), card: name.optional() })).default({}),
  /** Address of the guest on the management network (for `lab ssh` and people). */
  address: z.string().optional(),
});
export type Vm = z.infer<typeof vm>;

export const clusterFile = z.strictObject({
  version: z.literal(1),
  name,
  /** Journal, placement, lock and control socket of the controller. */
  state: z.string().startsWith("/"),
  hosts: z.record(name, host),
  vms: z.record(name, vm),
  limits: z
    .strictObject({
      bandwidth: bytes.optional(),
      maxDowntime: durationMs.default(300),
      strategy: z.enum(strategies).optional(),
      /** live: ranks of the moving VM are held after so long in pre-copy; "never": whatever happens. */
      parkAfter: z.union([z.literal("never"), durationMs], 'a duration such as "30s", or "never"').optional(),
    })
    .prefault({}),
  /** Each wait of a cycle has one. */
  deadlines: z
    .strictObject({
      hello: durationMs.default(15_000),
      prepare: durationMs.default(60_000),
      park: durationMs.default(60_000),
      detach: durationMs.default(30_000),
      migrate: durationMs.default(600_000),
      /** Ranks that are not held by then are named in the report; nothing else. */
      hold: durationMs.default(30_000),
      attach: durationMs.default(30_000),
      linkUp: durationMs.default(120_000),
      resume: durationMs.default(60_000),
    })
    .prefault({}),
  /** Where `symvirt checkpoint` writes; without it there are no checkpoints. */
  checkpoints: z
    .strictObject({
      /** Folder that this machine and every host reach at this path, as they do the disks. */
      path: z.string().startsWith("/", "an absolute path"),
      /** Of zstd. */
      level: z.number().int().min(1).max(19).default(1),
      /** How many complete checkpoints to keep when a new one is there; without it all. */
      keep: z.number().int().min(1).optional(),
    })
    .optional(),
  policy: policy.prefault({}),
  /** Whatever `symvirt lab` needs to know about a lab of its own making; ignored by all other verbs. */
  lab: z.record(z.string(), z.unknown()).optional(),
});
export type Cluster = z.infer<typeof clusterFile>;
