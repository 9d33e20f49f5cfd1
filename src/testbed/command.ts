/** The command line as a user runs it: a process of its own. */
import { spawn } from "node:child_process";
import { join } from "node:path";
import { packageRoot } from "../lab/index.js";

export interface CliResult {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
  ms: number;
}

export interface CliRun {
  args: readonly string[];
  pid: number;
  kill(signal: NodeJS.Signals): void;
  /** Undefined while it runs. */
  result(): CliResult | undefined;
  ended: Promise<CliResult>;
}

const running = new Set<CliRun>();

/** Starts `symvirt ARGS` on a cluster file. */
export function startCli(cluster: string, args: readonly string[]): CliRun {
  const started = performance.now();
  const child = spawn(process.execPath, [join(packageRoot, "bin/symvirt"), ...args], {
    env: { ...process.env, SYMVIRT_CLUSTER: cluster },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let result: CliResult | undefined;
  let stdout = "";
  let stderr = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
  });
  const ended = new Promise<CliResult>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code, signal) => {
      result = { code, signal, stdout, stderr, ms: performance.now() - started };
      running.delete(run);
      resolve(result);
    });
  });
  const run: CliRun = {
    args,
    pid: child.pid ?? 0,
    kill: (signal) => void child.kill(signal),
    result: () => result,
    ended,
  };
  running.add(run);
  return run;
}

/** Runs `symvirt ARGS` to its end. */
export async function runCli(cluster: string, args: readonly string[]): Promise<CliResult> {
  return await startCli(cluster, args).ended;
}

/** Ends what was left running: first kindly, so that a cycle is rolled back. */
export async function endRuns(patienceMs = 60_000): Promise<void> {
  for (const run of [...running]) {
    run.kill("SIGTERM");
    const timer = setTimeout(() => run.kill("SIGKILL"), patienceMs);
    await run.ended;
    clearTimeout(timer);
  }
}

/** Both outputs, for the message of a failure. */
export function words({ code, signal, stdout, stderr }: CliResult): string {
  return `exit ${code ?? signal}\n--- stderr\n${stderr}\n--- stdout\n${stdout.slice(-4000)}`;
}
