/** Instructions per message, by callgrind. The method is explained in docs/benchmarks.md. */
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { SymvirtError } from "../errors.js";
import { runPingPong, type Variant } from "./pingpong.js";
import { costPerMessage } from "./statistics.js";

const ROUNDS = 20;
const FEW = 32;
const MANY = 160;

/** Instructions collected in a profile, from its line `totals:` (or `summary:`). */
export function collected(profile: string): number {
  const total = Number(/^(?:totals|summary): (\d+)\s*$/m.exec(profile)?.[1]);
  if (!Number.isInteger(total) || total <= 0)
    throw new SymvirtError("internal", "A callgrind profile has no total", {
      hint: "were the functions burst_* of pingpong.c inlined?",
    });
  return total;
}

async function costOfRun(
  variant: Variant,
  messages: number,
  socket: string,
  signal: AbortSignal,
): Promise<number> {
  const folder = await mkdtemp(join(tmpdir(), "symvirt-bench-"));
  try {
    const under = [
      ...["valgrind", "-q", "--tool=callgrind", "--toggle-collect=burst_*"],
      `--callgrind-out-file=${folder}/rank.%q{OMPI_COMM_WORLD_RANK}`,
    ];
    const args = ["--mode", "count", "--bytes", "8", "--messages", `${messages}`, "--rounds", `${ROUNDS}`];
    await runPingPong({ variant, socket, args, under, signal }, messages * ROUNDS);
    const profiles = await Promise.all([0, 1].map((rank) => readFile(join(folder, `rank.${rank}`), "utf8")));
    return profiles.reduce((sum, profile) => sum + collected(profile), 0);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** User-space instructions of both ranks for one message of 8 bytes. */
export async function instructionsPerMessage(
  variant: Variant,
  socket: string,
  signal: AbortSignal,
): Promise<number> {
  const few = { messages: FEW, cost: await costOfRun(variant, FEW, socket, signal) };
  const many = { messages: MANY, cost: await costOfRun(variant, MANY, socket, signal) };
  return costPerMessage(many, few, ROUNDS);
}
