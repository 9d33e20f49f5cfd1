/** Instructions per message, by callgrind. The method is explained in docs/benchmarks.md. */
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { SymvirtError } from "../errors.js";
import { runPingPong, type Variant } from "./pingpong.js";
import { costPerMessage } from "./statistics.js";

/** Bursts of pingpong.c: so many, each of few and each of many messages. */
export interface Bursts {
  rounds: number;
  few: number;
  many: number;
  /** What a network needs to deliver a burst; absent: the socket's buffer has it at once. */
  settleMs?: number;
}

/** Over a socket of this host; both fit into its buffer. */
const overTcp: Bursts = { rounds: 20, few: 32, many: 160 };

/** What makes callgrind count inside a burst only. */
export const callgrind = ["-q", "--tool=callgrind", "--toggle-collect=burst_*"] as const;

/** Arguments of the ping-pong program; pure. */
export const countArguments = ({ rounds, settleMs }: Bursts, messages: number): string[] => [
  ...["--mode", "count", "--bytes", "8", "--messages", `${messages}`, "--rounds", `${rounds}`],
  ...(settleMs === undefined ? [] : ["--settle", `${settleMs}`]),
];

/** Instructions collected in a profile, from its line `totals:` (or `summary:`). */
export function collected(profile: string): number {
  const total = Number(/^(?:totals|summary): (\d+)\s*$/m.exec(profile)?.[1]);
  if (!Number.isInteger(total) || total <= 0)
    throw new SymvirtError("internal", "A callgrind profile has no total", {
      hint: "were the functions burst_* of pingpong.c inlined?",
    });
  return total;
}

/** The cost of one more message: of two runs, each of which gives the profiles of both ranks. */
export async function costOfMessage(
  bursts: Bursts,
  run: (messages: number) => Promise<readonly string[]>,
): Promise<number> {
  const cost = async (messages: number) => ({
    messages,
    cost: (await run(messages)).reduce((sum, profile) => sum + collected(profile), 0),
  });
  const few = await cost(bursts.few);
  return costPerMessage(await cost(bursts.many), few, bursts.rounds);
}

/** User-space instructions of both ranks for one message of 8 bytes, over BTL/tcp of this host. */
export function instructionsPerMessage(
  variant: Variant,
  socket: string,
  signal: AbortSignal,
): Promise<number> {
  return costOfMessage(overTcp, async (messages) => {
    const folder = await mkdtemp(join(tmpdir(), "symvirt-bench-"));
    try {
      const profile = `--callgrind-out-file=${folder}/rank.%q{OMPI_COMM_WORLD_RANK}`;
      const under = ["valgrind", ...callgrind, profile];
      const args = countArguments(overTcp, messages);
      await runPingPong({ variant, socket, args, under, signal }, messages * overTcp.rounds);
      return await Promise.all([0, 1].map((rank) => readFile(join(folder, `rank.${rank}`), "utf8")));
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  });
}
