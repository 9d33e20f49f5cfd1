/** Options that several verbs share, and how their values are read. */
import { type Command, InvalidArgumentError, Option } from "commander";
import { defaultClusterPath } from "../../controller/cluster-file.js";
import { LONGEST_MS } from "../../controller/cluster-schema.js";
import type { MigrationLimits, ParkAfter } from "../../controller/limits.js";

export interface ClusterFlags {
  cluster?: string;
  json?: boolean;
}

/** Adds `-c FILE` and `--json`. */
export function withCluster(command: Command): Command {
  return command
    .addOption(
      new Option(
        "-c, --cluster <file>",
        "cluster file (default: $SYMVIRT_CLUSTER, ./cluster.yaml, /run/symvirt/lab/cluster.yaml)",
      ),
    )
    .option("--json", "machine-readable result on stdout; talk stays on stderr");
}

export interface LimitFlags {
  bandwidth?: number;
  maxDowntime?: number;
  parkAfter?: ParkAfter;
}

/** Adds the limits of pre-copy, which override those of the cluster file. */
export function withLimits(command: Command): Command {
  return command
    .option("--bandwidth <bytes>", "most bytes a second of the migration stream, e.g. 100M", byteCount)
    .option(
      "--max-downtime <duration>",
      "longest pause of the guest at the switch-over, e.g. 300ms",
      duration,
    )
    .option(
      "--park-after <duration>",
      "live: hold the VM's ranks after so long in pre-copy, so that it ends; never: not even when memory changes as fast as it is sent",
      durationOrNever,
    );
}

export function limitsOf(flags: LimitFlags): MigrationLimits {
  return {
    ...(flags.bandwidth === undefined ? {} : { bandwidthBytesPerSecond: flags.bandwidth }),
    ...(flags.maxDowntime === undefined ? {} : { maxDowntimeMs: flags.maxDowntime }),
    ...(flags.parkAfter === undefined ? {} : { parkAfterMs: flags.parkAfter }),
  };
}

export function clusterPathOf(flags: ClusterFlags): string {
  return flags.cluster ?? defaultClusterPath();
}

/** "500ms", "30s", "2m", "1h" or a number of milliseconds, in milliseconds. */
export function duration(text: string): number {
  const match = /^(\d+)(ms|s|m|h)?$/.exec(text);
  const unit = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 }[(match?.[2] ?? "ms") as "ms" | "s" | "m" | "h"];
  const value = Number(match?.[1]) * unit;
  if (match === null || value < 1 || value > LONGEST_MS)
    throw new InvalidArgumentError('a duration such as "500ms", "30s", "2m", at most 596h');
  return value;
}

/** The same, or "never". */
export function durationOrNever(text: string): ParkAfter {
  if (text === "never") return text;
  try {
    return duration(text);
  } catch {
    throw new InvalidArgumentError('a duration such as "500ms", "30s", "2m", or "never"');
  }
}

/** "64M", "1G" or a number of bytes, in bytes. */
export function byteCount(text: string): number {
  const match = /^(\d+)([kMG])?$/.exec(text);
  const unit = { "": 1, k: 2 ** 10, M: 2 ** 20, G: 2 ** 30 }[(match?.[2] ?? "") as "" | "k" | "M" | "G"];
  const value = Number(match?.[1]) * unit;
  if (match === null || value < 1) throw new InvalidArgumentError('bytes such as "1048576", "64M", "1G"');
  return value;
}
