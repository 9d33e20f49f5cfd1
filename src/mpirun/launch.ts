/**
 * Runs mpirun in place of the wrapper, as far as a process can that cannot exec: same terminal, same
 * streams, signals handed on, its exit code ours.
 */
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { constants } from "node:os";

const FORWARDED = ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"] as const;
/** What a terminal sends to every process of its foreground group, mpirun included. */
const FROM_TERMINAL = new Set<NodeJS.Signals>(["SIGINT", "SIGQUIT", "SIGTSTP"]);

/**
 * mpirun takes its handler of SIGPIPE away before it closes its sockets (rte_finalize in orte/mca/ess/hnp/ess_hnp_module.c):
 * a daemon that is gone by then ends it by that signal, and a job that went well has exit code 141. What it starts gets
 * the signal's default back from it (odls_default_module.c, plm_rsh_module.c).
 */
const IGNORING_SIGPIPE = `trap '' PIPE; exec "$0" "$@"`;

/** Resolves with mpirun's exit code, or 128 + the number of the signal that ended it. */
export function launch(program: string, words: readonly string[]): Promise<number> {
  return new Promise((resolve, reject) => {
    const child = spawn("/bin/sh", ["-c", IGNORING_SIGPIPE, program, ...words], { stdio: "inherit" });
    const forward = (signal: NodeJS.Signals) => {
      // A second SIGINT makes mpirun give up cleaning up: do not double what the terminal has sent.
      if (FROM_TERMINAL.has(signal) && inForeground()) return;
      child.kill(signal);
    };
    for (const signal of FORWARDED) process.on(signal, forward);
    process.on("SIGTSTP", (signal) => {
      forward(signal);
      process.kill(process.pid, "SIGSTOP");
    });
    process.on("SIGCONT", () => child.kill("SIGCONT"));
    child.once("error", reject);
    child.once("exit", (code, signal) => {
      for (const name of [...FORWARDED, "SIGTSTP", "SIGCONT"]) process.removeAllListeners(name);
      resolve(code ?? 128 + constants.signals[signal ?? "SIGKILL"]);
    });
  });
}

/** True if this process is in the foreground group of its terminal (/proc/self/stat: pgrp, tpgid). */
function inForeground(): boolean {
  const stat = readFileSync("/proc/self/stat", "latin1");
  const [, , group, , , terminalGroup] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return group !== undefined && group === terminalGroup;
}
