/** A `symvirt agent` of this host for the ranks of a bench, without a controller. */
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { SymvirtError } from "../errors.js";
import { packageRoot } from "../lab/index.js";

const START_MS = 20_000;

export interface BenchAgent {
  socket: string;
  stop(): Promise<void>;
}

/** Starts it and resolves when its socket is there. */
export async function startAgent(signal: AbortSignal): Promise<BenchAgent> {
  const folder = await mkdtemp(join(tmpdir(), "symvirt-bench-"));
  const socket = join(folder, "ranks.sock");
  const child = spawn(
    process.execPath,
    [
      ...[join(packageRoot, "bin/symvirt"), "agent", "--log-level", "error", "--socket", socket],
      ...["--port", `unix-listen:${join(folder, "port")}`, "--hooks", join(folder, "hooks")],
    ],
    { stdio: ["ignore", "ignore", "pipe"] },
  );
  let words = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    words = (words + text).slice(-4096);
  });
  const gone = new Promise<void>((resolve) => child.once("close", () => resolve()));
  const stop = async () => {
    child.kill("SIGTERM");
    await gone;
    await rm(folder, { recursive: true, force: true });
  };
  try {
    const deadline = performance.now() + START_MS;
    while (!existsSync(socket)) {
      if (child.exitCode !== null || performance.now() > deadline)
        throw new SymvirtError("deadline", `The agent of the bench did not start: ${words.trim()}`);
      await delay(20, undefined, { signal });
    }
  } catch (error) {
    await stop();
    throw error;
  }
  return { socket, stop };
}
