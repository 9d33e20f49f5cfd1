/** Runs shell lines on a host of the cluster file, whatever its `run` prefix is. */
import { spawn } from "node:child_process";
import { SymvirtError } from "../../errors.js";

/** One word for a POSIX shell, whatever it contains. */
export const quote = (word: string): string => `'${word.replaceAll("'", `'\\''`)}'`;

/** Replaces "{key}" by values; an unknown key stays as it is. */
export function fill(template: string, values: Readonly<Record<string, string>>): string {
  return template.replace(/\{([a-z]+)\}/g, (whole, key: string) => values[key] ?? whole);
}

export interface HostResult {
  /** Exit status, or null when a signal ended it. */
  code: number | null;
  stdout: string;
  stderr: string;
}

/**
 * Runs `script` by a POSIX shell of the host. It travels on stdin: prefixes such as
 * ["ip", "netns", "exec", "x"] take an argv while ["ssh", "h2"] joins it into a line, and stdin is
 * the same for both. Rejects when the prefix cannot be started or the signal aborts.
 */
export function runOnHost(
  prefix: readonly string[],
  script: string,
  signal?: AbortSignal,
): Promise<HostResult> {
  const [command = "sh", ...args] = [...prefix, "sh", "-s"];
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      stdio: ["pipe", "pipe", "pipe"],
      ...(signal === undefined ? {} : { signal }),
    });
    const kept = { stdout: "", stderr: "" };
    for (const stream of ["stdout", "stderr"] as const)
      child[stream].setEncoding("utf8").on("data", (text: string) => {
        kept[stream] = (kept[stream] + text).slice(-65536);
      });
    child.once("error", (cause) => {
      if (signal?.aborted === true) reject(signal.reason);
      else reject(new SymvirtError("unreachable", `Cannot run "${command}" to reach the host`, { cause }));
    });
    child.once("close", (code) => resolve({ code, ...kept }));
    // The command may end without reading its script; its status tells.
    child.stdin.on("error", () => undefined);
    child.stdin.end(script);
  });
}
