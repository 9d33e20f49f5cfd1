/** Which process a record was written by, so that a record of a dead one can be told from one of a living one. */
import { readFileSync } from "node:fs";
import { hostname } from "node:os";
import { z } from "zod";

export const processIdentity = z.object({
  pid: z.number().int().positive(),
  /** Field 22 of /proc/PID/stat: with the pid it names one process of this boot. */
  startTime: z.string(),
  bootId: z.string(),
});
export type ProcessIdentity = z.infer<typeof processIdentity>;

/** Start time of a process in clock ticks since boot, undefined when there is no such process (or it is a zombie). */
export function startTimeOf(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    // The command may hold blanks and brackets: fields are counted after the last ")".
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return fields[0] === "Z" ? undefined : fields[19];
  } catch {
    return undefined;
  }
}

export function bootId(): string {
  return readFileSync("/proc/sys/kernel/random/boot_id", "latin1").trim();
}

export function ownIdentity(): ProcessIdentity {
  return { pid: process.pid, startTime: startTimeOf(process.pid) ?? "", bootId: bootId() };
}

/** Whether it lives here and in this boot. Of another machine's process it says false: it cannot be seen from here. */
export function livesHere(identity: ProcessIdentity): boolean {
  return identity.bootId === bootId() && startTimeOf(identity.pid) === identity.startTime;
}

/** Name of this machine over its boots: host name and machine id, as clones often share one of them. */
export function machineName(): string {
  let id = "";
  try {
    id = readFileSync("/etc/machine-id", "latin1").trim();
  } catch {
    // Not every system has one; the host name has to do.
  }
  return `${hostname()}:${id}`;
}
