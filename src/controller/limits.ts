/** How pre-copy may use the network and the guest's time: the command's word, else the cluster file's. */
import { DEFAULT_BANDWIDTH } from "../vmm/driver.js";
import type { Cluster } from "./cluster-file.js";
import type { Strategy } from "./strategy.js";

/** When the ranks of the moving VM are held for good although nothing says that it is needed. */
export type ParkAfter = number | "never";

export interface MigrationLimits {
  /** Absent: the VMM's own. */
  bandwidthBytesPerSecond?: number;
  maxDowntimeMs?: number;
  /**
   * live: milliseconds of pre-copy after which the ranks of the moving VM are held; "never" also takes away the rule
   * of the dirty rate (outrun.ts). Absent: that rule alone.
   */
  parkAfterMs?: ParkAfter;
  /** The VMM may slow the guest's processors down to make pre-copy end; for comparison (bench `convergence`). */
  autoConverge?: boolean;
}

export function limitsInForce({ limits }: Pick<Cluster, "limits">, asked: MigrationLimits = {}) {
  const { bandwidth, maxDowntime, parkAfter } = limits;
  return {
    maxDowntimeMs: maxDowntime,
    ...(bandwidth === undefined ? {} : { bandwidthBytesPerSecond: bandwidth }),
    ...(parkAfter === undefined ? {} : { parkAfterMs: parkAfter }),
    ...asked,
  } satisfies MigrationLimits;
}

/** The limits in words, for `plan`. */
export function limitsInWords(limits: MigrationLimits, strategy: Strategy): string {
  const { bandwidthBytesPerSecond = DEFAULT_BANDWIDTH, maxDowntimeMs, parkAfterMs, autoConverge } = limits;
  const mib = Number((bandwidthBytesPerSecond / 2 ** 20).toFixed(1));
  return [
    `at most ${mib} MiB/s`,
    ...(maxDowntimeMs === undefined ? [] : [`a downtime of ${maxDowntimeMs} ms`]),
    ...(strategy === "live" ? [holdInWords(parkAfterMs)] : []),
    ...(autoConverge === true ? ["QEMU may slow the guest down"] : []),
  ].join(", ");
}

function holdInWords(parkAfterMs: ParkAfter | undefined): string {
  if (parkAfterMs === "never") return "ranks are never held for it";
  const rule = "its memory changes faster than it is sent";
  return parkAfterMs === undefined
    ? `ranks are held if ${rule}`
    : `ranks are held after ${parkAfterMs / 1000} s or if ${rule}`;
}
