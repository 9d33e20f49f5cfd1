/** How much memory a host has for one more VM. */
import { SymvirtError } from "../../errors.js";
import { runOnHost } from "./run-on-host.js";

/**
 * Bytes a new QEMU could use on the host that `run` reaches: what the kernel calls available, and free huge pages,
 * which are not counted in it. Throws "unreachable" when the host does not run a command.
 */
export async function freeMemory(host: string, run: readonly string[], signal: AbortSignal): Promise<number> {
  const result = await runOnHost(run, "cat /proc/meminfo\n", signal);
  const available = memoryOf(result.stdout);
  if (result.code === 0 && available !== undefined) return available;
  const words = result.stderr.trim().split("\n").pop() ?? "";
  throw new SymvirtError(
    "unreachable",
    `host ${host} does not tell its memory (status ${result.code}): ${words}`,
    { hint: `check hosts.${host}.run in the cluster file` },
  );
}

/** The same of a text of /proc/meminfo; undefined when it is none. */
export function memoryOf(meminfo: string): number | undefined {
  const number = (name: string): number | undefined => {
    const match = new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(meminfo);
    return match === null ? undefined : Number(match[1]);
  };
  const available = number("MemAvailable");
  if (available === undefined) return undefined;
  return 1024 * (available + (number("HugePages_Free") ?? 0) * (number("Hugepagesize") ?? 0));
}
