/**
 * What the controller needs of a virtual machine monitor. One driver object stands for one VM on one
 * host (after a migration the VM has another driver object). Every call that waits takes an
 * AbortSignal; its deadline is the caller's. Errors are SymvirtError.
 */
import type { Duplex } from "node:stream";
import type { Card } from "../controller/cluster-file.js";

export interface VmFacts {
  /** "running", "paused", "inmigrate", "postmigrate", … as `query-status` says. */
  status: string;
  /** Full machine type, e.g. "pc-q35-7.2": both ends must have the same. */
  machine: string;
  /** Tags (qdev ids) of hot-pluggable cards now present. */
  cards: string[];
  /** Reasons why the VMM would refuse to migrate the VM now (`blocked-reasons`), cards included. */
  blockers: string[];
  vmmVersion: string;
  /** Guest memory in bytes, hot-plugged memory included. */
  memoryBytes: number;
  /** State of the last or current outgoing or incoming migration as the VMM says, "none" before the first. */
  migration: string;
}

export interface MigrationProgress {
  status: string;
  transferred: number;
  remaining: number;
  total: number;
  /** Bytes a second the guest changed in the last complete pass; 0 before its end. */
  dirtyBytesPerSecond: number;
  /** Bytes a second that go out now. */
  sentBytesPerSecond: number;
  /** Milliseconds; set when the migration has completed. */
  downtimeMs?: number;
  totalMs?: number;
}

/** Bytes a second of pre-copy where nothing is asked for: QEMU's own. */
export const DEFAULT_BANDWIDTH = 128 * 1024 * 1024;

export interface MigrateOptions {
  /** URI the destination listens on, e.g. "tcp:10.77.0.102:49152". */
  uri: string;
  /** Of pre-copy; absent: the VMM's own default (QEMU: 128 MiB/s), whatever was asked of an earlier migration. */
  bandwidthBytesPerSecond?: number;
  /** How long the VM may be stopped at the end of pre-copy; absent: the VMM's own default (QEMU: 300 ms). */
  maxDowntimeMs?: number;
  /** Whether the VMM may take processor time from the guest to make pre-copy end (QEMU: auto-converge); default no. */
  autoConverge?: boolean;
  onProgress?: (progress: MigrationProgress) => void;
  signal: AbortSignal;
}

/** background-snapshot: the VM runs on while its memory is written. stop-and-save: it stands still till the end. */
export const captureMethods = ["background-snapshot", "stop-and-save"] as const;
export type CaptureMethod = (typeof captureMethods)[number];

/** A disk of the VM that the guest can write to. */
export interface WritableDisk {
  /** The VMM's name of it. */
  drive: string;
  /** Absolute path of the image on the host. */
  image: string;
  /** "qcow2" or "raw". */
  format: string;
  /** Image under a qcow2 one, which nobody writes to. */
  backing?: string;
  /** What the image takes now. */
  usedBytes: number;
}

export interface CaptureFacts {
  method: CaptureMethod;
  disks: WritableDisk[];
}

export interface CaptureOptions {
  method: CaptureMethod;
  /**
   * A shell command of the host that takes the stream of memory and device state on its standard input. Whether it has
   * kept it, and when it has ended, is its own word.
   */
  sink: string;
  /** By drive: the image to be made for what the disk held at the instant of capture. */
  disks: readonly (WritableDisk & { copy: string })[];
  /**
   * Path on the host beside which files are made for a moment, with this and a suffix as their names; none may be there.
   * Every capture needs its own.
   */
  gate: string;
  /** All that can be done while the VM runs is done, and `go` is waited for. Called once. */
  onReady: () => void;
  /** Resolves when the VM may be stopped. */
  go: Promise<void>;
  /** The instant has passed and the VM runs again; it did not run for so many milliseconds. Called once. */
  onTaken: (pauseMs: number) => void;
  onProgress?: (progress: MigrationProgress) => void;
  signal: AbortSignal;
}

/**
 * A capture that is given up gets this long, after the caller's deadline: a stream that has begun is read to its end.
 * Milliseconds.
 */
export const CAPTURE_RECOVERY_MS = 600_000;

export interface VmDriver {
  readonly vm: string;
  readonly host: string;
  inspect(signal: AbortSignal): Promise<VmFacts>;
  /** Opens the host end of the agent's virtio-serial port. Only one may be open at a time. */
  openChannel(signal: AbortSignal): Promise<Duplex>;
  /** Idempotent: an absent card is success. Resolves when the VMM has released the card. */
  detach(tag: string, signal: AbortSignal): Promise<void>;
  /** Idempotent: a card already present under the tag, and the same one, is success. */
  attach(tag: string, bus: string, card: Card, signal: AbortSignal): Promise<void>;
  /**
   * Resolves when completed; on abort or failure the source runs again (migrate_cancel, cont) before it rejects.
   * An abort that comes too late (the VM has moved) resolves. The destination stays paused until its `resume`;
   * when this rejects it may hold a complete paused copy, so `quit` it.
   */
  migrate(options: MigrateOptions): Promise<MigrationProgress>;
  /**
   * For a controller that takes over: cancels whatever outgoing migration is on and makes the VM run here,
   * unless it has moved. "moved": the migration had completed, nothing was resumed.
   */
  cancelMigration(signal: AbortSignal): Promise<"runs-here" | "moved">;
  /**
   * Tells a destination started by `launch({incoming: true})` to listen; returns the URI to migrate to.
   * The VM will be paused, not running, when it has arrived.
   */
  listen(signal: AbortSignal): Promise<string>;
  /**
   * Resolves when the VM runs. A source whose VM has moved is refused, as it would run twice, unless
   * `evenIfMoved` says that the caller has proven the destination dead or never resumed.
   */
  resume(signal: AbortSignal, options?: { evenIfMoved?: boolean }): Promise<void>;
  /** Resolves when the VM stands still. */
  pause(signal: AbortSignal): Promise<void>;
  /** All its NICs but the cards, by the names that `setLinks` knows. */
  nics(signal: AbortSignal): Promise<string[]>;
  /**
   * Cuts or joins the wires of these NICs. Down, the VMM drops every frame in both directions, and the guest sees its
   * carrier go.
   */
  setLinks(nics: readonly string[], up: boolean, signal: AbortSignal): Promise<void>;
  /** Makes the VM known to the network, so that frames for it come to the host where it is now. */
  announce(signal: AbortSignal): Promise<void>;
  /** How the VM would be captured, and its disks. Rejects with "refused" if one of them cannot be. Changes nothing. */
  captureFacts(signal: AbortSignal): Promise<CaptureFacts>;
  /**
   * Memory, devices and disks of one instant. Resolves when all has been given to the sink; on abort or failure the VM runs again and
   * nothing of the capture goes on in the VMM before it rejects. The files are the caller's.
   */
  capture(options: CaptureOptions): Promise<void>;
  /**
   * For a controller that takes over: ends a capture that is on, which was given this `gate`, and makes the VM run.
   * Idempotent.
   */
  abandonCapture(gate: string, signal: AbortSignal): Promise<void>;
  /**
   * Loads a capture into a VMM started by `launch({incoming: true})`; `source` is a shell command of the host that
   * gives the stream. Resolves when all is loaded; the VM stands still, with its links down if they were.
   */
  restore(source: string, signal: AbortSignal): Promise<void>;
  /** Ends this VMM process (QMP quit, then kill by pid); idempotent. */
  quit(signal: AbortSignal): Promise<void>;
  close(): Promise<void>;
  /** As close, and for good: work that was given up and goes on must not hold the VMM's one connection. */
  end(): Promise<void>;
}
