/**
 * The agent's end of the channel to the host. Three kinds: the virtio port of a VM (or any character
 * device), `unix:PATH` (connects, as to a test's host end) and `unix-listen:PATH` (listens, as QEMU's
 * chardev does, so that a controller can be tried without a VM).
 */
export const DEFAULT_PORT = "/dev/virtio-ports/org.symvirt.0";

export interface HostPortEvents {
  /** The host end is there (perhaps a new one): nothing said before counts. */
  opened(): void;
  data(chunk: Buffer): void;
  /** The host end is away; what was queued is dropped. */
  away(): void;
  /** The queue is short again. */
  drained(): void;
  /** The port can never be used, because another process has it, say. */
  failed(error: unknown): void;
}

export interface HostPort {
  /** Queues bytes; dropped while the host end is away. */
  write(bytes: Buffer): void;
  /** Bytes waiting for the host to take them. */
  readonly queuedBytes: number;
  /** Idempotent. */
  close(): void;
}

/** Below this many queued bytes, `drained` is called. */
export const LOW_WATER_BYTES = 256 * 1024;
