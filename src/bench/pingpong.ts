/** Two ranks of test/workloads/pingpong.c on this host, over BTL/tcp: without the library, with it inert, with it active. */
import { spawn } from "node:child_process";
import { join } from "node:path";
import { z } from "zod";
import { SymvirtError } from "../errors.js";
import { packageRoot } from "../lab/index.js";

/** off: no preload; inert: preloaded and told to do nothing; on: the proxy carries the traffic. */
export const variants = ["off", "inert", "on"] as const;
export type Variant = (typeof variants)[number];

export interface PingPongRun {
  variant: Variant;
  /** Socket of the agent. */
  socket: string;
  args: readonly string[];
  /** What the program is run under. */
  under?: readonly string[];
  signal: AbortSignal;
  deadlineMs?: number;
}

const timedResult = z.strictObject({
  mode: z.literal("time"),
  sizes: z.array(
    z.strictObject({
      bytes: z.number().int().min(1),
      latencyUs: z.number().positive(),
      bytesPerSecond: z.number().positive(),
    }),
  ),
});
export type TimedResult = z.infer<typeof timedResult>;

/** Reads the result of mode time out of the job's output. */
export function parseTimed(stdout: string): TimedResult {
  const line = stdout.split("\n").find((l) => l.startsWith('{"mode":"time"'));
  try {
    return timedResult.parse(JSON.parse(line ?? ""));
  } catch (cause) {
    throw new SymvirtError("internal", "The ping-pong program gave no result", { cause });
  }
}

/**
 * Whether the library did in this run what the variant says, by its own words: an active one tells at the
 * end how many fragments went through the proxy. Returns what is wrong, or undefined.
 */
export function variantProblem(
  variant: Variant,
  stderr: string,
  fragments: number,
  route: "tcp" | "openib" = "tcp",
): string | undefined {
  const finals = [
    ...stderr.matchAll(new RegExp(`finalize: epoch \\d+,.* ${route} sent (\\d+) received (\\d+)`, "g")),
  ];
  const inert = [...stderr.matchAll(/inert: SYMVIRT_DISABLE is set/g)];
  if (variant === "off") return stderr.includes("[symvirt ") ? "the library was loaded" : undefined;
  if (variant === "inert")
    return inert.length === 2 && finals.length === 0
      ? undefined
      : `${inert.length} of 2 ranks say that they are inert`;
  const enough = finals.filter((f) => Number(f[1]) + Number(f[2]) >= fragments).length;
  return enough === 2 ? undefined : `${enough} of 2 ranks sent their messages through the proxy`;
}

/** The command of a run; pure. */
export function pingPongCommand({
  variant,
  socket,
  args,
  under = [],
}: Omit<PingPongRun, "signal">): string[] {
  const environment: Record<string, string> =
    variant === "off"
      ? {}
      : {
          SYMVIRT_SOCKET: socket,
          SYMVIRT_PROXY: "tcp",
          SYMVIRT_LOG: "info",
          LD_PRELOAD: join(packageRoot, "build/preload/libsymvirt.so"),
          ...(variant === "inert" ? { SYMVIRT_DISABLE: "1" } : {}),
        };
  return [
    ...["mpirun", "--allow-run-as-root", "--oversubscribe", "--mca", "pml", "ob1"],
    ...["--mca", "btl", "tcp,self", "--mca", "btl_tcp_if_include", "lo"],
    ...["--mca", "mpi_yield_when_idle", "0"],
    ...Object.entries(environment).flatMap(([name, value]) => ["-x", `${name}=${value}`]),
    ...["-np", "2", ...under, join(packageRoot, "build/workloads/pingpong"), ...args],
  ];
}

/** Runs it to its end; fails if the library was not in the state the variant is named after. */
export async function runPingPong(run: PingPongRun, fragments: number): Promise<string> {
  const [command = "", ...args] = pingPongCommand(run);
  const { signal, deadlineMs = 300_000 } = run;
  signal.throwIfAborted();
  const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"] });
  let stdout = "";
  let stderr = "";
  let late = false;
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    stderr = (stderr + text).slice(-65_536);
  });
  // SIGTERM: mpirun ends its ranks.
  const end = () => void child.kill("SIGTERM");
  const timer = setTimeout(() => {
    late = true;
    end();
  }, deadlineMs);
  signal.addEventListener("abort", end, { once: true });
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", resolve);
  }).finally(() => {
    clearTimeout(timer);
    signal.removeEventListener("abort", end);
  });
  signal.throwIfAborted();
  if (late)
    throw new SymvirtError("deadline", `ping-pong (${run.variant}) did not end in ${deadlineMs / 1000} s`);
  if (code !== 0)
    throw new SymvirtError(
      "internal",
      `ping-pong (${run.variant}) ended with ${code}: ${stderr.slice(-2000)}`,
    );
  const problem = variantProblem(run.variant, stderr, fragments);
  if (problem !== undefined)
    throw new SymvirtError("internal", `This is no measurement of "${run.variant}": ${problem}`);
  return stdout;
}
