/** Runs the machine's own tools (ip, debootstrap, ssh, …) with a deadline and a readable error. */
import { spawn } from "node:child_process";
import { SymvirtError } from "../errors.js";

export interface RunOptions {
  /** Written to the command's stdin, which is then closed. */
  input?: string;
  env?: NodeJS.ProcessEnv;
  cwd?: string;
  /** Aborts and deadlines; the command gets `killSignal` (SIGTERM), and the promise rejects when it has ended. */
  signal?: AbortSignal;
  killSignal?: NodeJS.Signals;
  /** Called with each line of stdout and stderr as it comes. */
  onLine?: (line: string) => void;
}

export interface RunResult {
  /** Exit status; 128 + signal number is not used: `signal` says so. */
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

const KEPT_BYTES = 1 << 20;

/** The environment with the folders of administration tools in $PATH, which `su` and some cron jobs leave out. */
export function toolEnvironment(env: NodeJS.ProcessEnv = process.env): NodeJS.ProcessEnv {
  return { ...env, PATH: `${env.PATH ?? "/usr/bin:/bin"}:/usr/sbin:/sbin` };
}

/** Runs a command and collects what it says (the last 1 MiB). Rejects only when it cannot be started or was aborted. */
export function runForResult(argv: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  const [command, ...args] = argv;
  if (command === undefined) return Promise.reject(new SymvirtError("internal", "Empty command"));
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      stdio: ["pipe", "pipe", "pipe"],
      env: toolEnvironment(options.env),
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
      ...(options.signal === undefined ? {} : { signal: options.signal }),
      ...(options.killSignal === undefined ? {} : { killSignal: options.killSignal }),
    });
    const kept = { stdout: "", stderr: "" };
    for (const stream of ["stdout", "stderr"] as const) {
      let rest = "";
      child[stream].setEncoding("utf8").on("data", (text: string) => {
        kept[stream] = (kept[stream] + text).slice(-KEPT_BYTES);
        if (options.onLine === undefined) return;
        const lines = (rest + text).split("\n");
        rest = lines.pop() ?? "";
        for (const line of lines) options.onLine(line);
      });
      child[stream].on("end", () => {
        if (rest !== "") options.onLine?.(rest);
      });
    }
    child.on("error", (cause: NodeJS.ErrnoException) => {
      // An abort ends the command; "close" follows then, and nothing of it runs any more.
      if (cause.name === "AbortError" && child.pid !== undefined) return;
      if (options.signal?.aborted === true) reject(options.signal.reason);
      else if (cause.code === "ENOENT")
        reject(
          new SymvirtError("refused", `Command "${command}" is not installed`, { cause, hint: INSTALL_HINT }),
        );
      else reject(cause);
    });
    child.on("close", (code, signal) => {
      if (options.signal?.aborted === true) reject(options.signal.reason);
      else resolve({ code, signal, ...kept });
    });
    // A command that does not read its input to the end is its own business.
    child.stdin.on("error", () => undefined);
    child.stdin.end(options.input ?? "");
  });
}

export const INSTALL_HINT = "install what is missing with: npm run setup";

/** Like runForResult, but any end other than status 0 is a SymvirtError with the command's last words. Returns stdout. */
export async function run(argv: readonly string[], options: RunOptions = {}): Promise<string> {
  const result = await runForResult(argv, options);
  if (result.code === 0) return result.stdout;
  const words = (result.stderr.trim() || result.stdout.trim()).split("\n").slice(-5).join("; ");
  const how = result.signal === null ? `status ${result.code}` : `signal ${result.signal}`;
  throw new SymvirtError(
    "internal",
    `"${argv.slice(0, 6).join(" ")}" ended with ${how}: ${words || "no message"}`,
  );
}
