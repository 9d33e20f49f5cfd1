/**
 * manifest.json of a checkpoint: what was captured, of what, and how it is started again. It is written last; a
 * folder without one is not a checkpoint. docs/checkpoint.md explains every field to people.
 */
import { z } from "zod";

/** Version of the manifest's schema. Raise it for whatever an older symvirt would restart wrongly. */
export const MANIFEST_VERSION = 1;

const name = /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/;
/** A checkpoint's id: UTC second it was begun, and the operator's name for it if there is one. */
const id = /^\d{8}T\d{6}Z(?:-[A-Za-z0-9][A-Za-z0-9._-]{0,62})?$/;
/** No folder and nothing hidden: a part lies in the checkpoint's own folder. */
const fileName = /^[A-Za-z0-9][A-Za-z0-9._-]{0,200}$/;

export const isCheckpointId = (text: string): boolean => id.test(text);
export const isCheckpointName = (text: string): boolean => name.test(text);
export const isPartFile = (text: string): boolean => fileName.test(text) && text !== "manifest.json";

const count = z.number().int().min(0);
const sha256 = z.string().regex(/^[0-9a-f]{64}$/, "64 hexadecimal digits");

/** One file of a checkpoint. */
export const part = z.strictObject({
  /** Name in the checkpoint's folder, e.g. "vm1.ram.zst". */
  file: z.string().refine(isPartFile, "a file name without folders"),
  /** How the file holds the stream; "none": byte by byte, for instance a qcow2 file that QEMU opens where it is. */
  encoding: z.enum(["zstd", "none"]),
  /** Length of the stream that was captured. */
  rawBytes: count,
  /** Length of the file. */
  storedBytes: count,
  /** Of the file as it is stored. */
  sha256,
});
export type Part = z.infer<typeof part>;

/** A disk at its VM's own instant of capture. */
export const disk = z.strictObject({
  /** The VMM's name of it: qdev id or block node. */
  drive: z.string().min(1),
  /** The image the VM wrote to when it was captured. */
  image: z.string().min(1),
  format: z.string().min(1),
  kept: z.discriminatedUnion("kind", [
    /** A whole copy in the checkpoint. */
    z.strictObject({ kind: z.literal("copy"), part }),
    /** What the image held over `backing`, which nobody may change as long as the checkpoint is there. */
    z.strictObject({ kind: z.literal("overlay"), part, backing: z.string().min(1) }),
    /** A snapshot of this name inside the image; the checkpoint holds none of the disk's bytes. */
    z.strictObject({ kind: z.literal("internal-snapshot"), snapshot: z.string().min(1) }),
  ]),
});
export type Disk = z.infer<typeof disk>;

export const capturedVm = z.strictObject({
  vm: z.string().regex(name),
  /** Host it ran on. */
  host: z.string().regex(name),
  /** The VMM's whole command line, placeholders replaced, without cards. */
  argv: z.array(z.string()).min(1),
  /** Version of QEMU, e.g. "7.2.22". */
  qemu: z.string().min(1),
  /** Full machine type, e.g. "pc-q35-7.2": the restart must have the same. */
  machine: z.string().min(1),
  memoryBytes: z.number().int().min(1),
  /** Cards it had before they were detached for the capture. */
  cards: z.array(
    z.strictObject({
      tag: z.string().regex(name),
      bus: z.string().min(1),
      /** The host's name of the card. */
      card: z.string().regex(name),
      driver: z.string().min(1),
      identity: z.strictObject({ mac: z.string().optional(), guid: z.string().optional() }),
    }),
  ),
  /** Milliseconds the VM did not run. */
  pauseMs: z.number().min(0),
  /** The VMM's stream of memory and device state. */
  ram: part,
  disks: z.array(disk),
});
export type CapturedVm = z.infer<typeof capturedVm>;

export const capturedJob = z.strictObject({
  job: z.string().min(1),
  worldSize: z.number().int().min(1),
  /** Epochs as of the cut: a restart opens openib in later ones. */
  ranks: z.array(z.strictObject({ rank: count, vm: z.string().regex(name), epoch: count })),
});
export type CapturedJob = z.infer<typeof capturedJob>;

/** How it was seen to that no message crosses from after one VM's capture to before another's. */
export const cut = z.strictObject({
  /** links-down: the VMs ran with their links down. all-stopped: every VM was stopped before the first was captured. */
  method: z.enum(["links-down", "all-stopped"]),
  /** background-snapshot: the VM ran on while its memory was written. stop-and-save: it stood still till the end. */
  capture: z.enum(["background-snapshot", "stop-and-save"]),
  /** Milliseconds in which no VM of the set could reach another. */
  withoutNetworkMs: z.number().min(0),
});
export type Cut = z.infer<typeof cut>;

/** What the capture knows and the store does not. */
export const captured = z.strictObject({
  /** Number of the cycle in the journal. */
  cycle: count,
  cut,
  vms: z.array(capturedVm).min(1),
  jobs: z.array(capturedJob),
});
export type Captured = z.infer<typeof captured>;

export const manifest = captured.extend({
  kind: z.literal("symvirt-checkpoint"),
  version: z.literal(MANIFEST_VERSION),
  /** Version of symvirt that wrote it. */
  symvirt: z.string().min(1),
  /** Name of the cluster file's cluster. */
  cluster: z.string().regex(name),
  id: z.string().regex(id),
  createdAt: z.iso.datetime(),
});
export type Manifest = z.infer<typeof manifest>;

/** Every part of a checkpoint, VM by VM. */
export function partsOf({ vms }: Captured): Part[] {
  return vms.flatMap((vm) => [
    vm.ram,
    ...vm.disks.flatMap(({ kept }) => (kept.kind === "internal-snapshot" ? [] : [kept.part])),
  ]);
}

/** Of all parts: the streams that were captured, and the files they take. */
export function bytesOf(checkpoint: Captured): { raw: number; stored: number } {
  const parts = partsOf(checkpoint);
  return {
    raw: parts.reduce((sum, p) => sum + p.rawBytes, 0),
    stored: parts.reduce((sum, p) => sum + p.storedBytes, 0),
  };
}
