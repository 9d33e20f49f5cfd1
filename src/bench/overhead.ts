/** Bench `overhead`: what the library costs a job that nobody moves. */
import { execFileSync } from "node:child_process";
import { startAgent } from "./bench-agent.js";
import { instructionsPerMessage } from "./instructions.js";
import { describeMachine } from "./machine.js";
import { parseTimed, runPingPong, type TimedResult, type Variant, variants } from "./pingpong.js";
import { type OverheadReport, overheadReport } from "./results.js";
import { figure, pairedRatios } from "./statistics.js";

/** Pairs of runs in the lab, over openib. */
export interface OpenibPairs {
  accelerator: "kvm" | "tcg";
  pairs: TimedPairs;
}

export interface OverheadOptions {
  /** Interleaved repetitions of the times. */
  runs: number;
  /** Repetitions of the instruction counts, which hardly vary; 0: none. */
  countRuns: number;
  bytes: readonly number[];
  /** For each size and measurement. */
  seconds: number;
  /** Measures over openib, with these sizes; absent: that is left out. */
  openib?: (options: Pick<OverheadOptions, "runs" | "bytes" | "seconds">) => Promise<OpenibPairs>;
  say: (line: string) => void;
  signal: AbortSignal;
}

export const defaultSizes: readonly number[] = [8, 64, 512, 4096, 32_768, 262_144, 1_048_576, 4_194_304];

export function hasValgrind(): boolean {
  try {
    execFileSync("valgrind", ["--version"], { stdio: "ignore" });
    return true;
  } catch {
    // Not installed: the bench goes without instruction counts and says so.
    return false;
  }
}

/** Runs of both variants, in pairs: entry i of one was measured next to entry i of the other. */
export interface TimedPairs {
  off: TimedResult[];
  on: TimedResult[];
}

/** Latency and bandwidth by size; ratios are on/off, of pairs. */
export function comparePairs({ off, on }: TimedPairs): Pick<OverheadReport, "latency" | "bandwidth"> {
  const values = (results: TimedResult[], bytes: number, pick: (s: TimedResult["sizes"][number]) => number) =>
    results.flatMap((r) => r.sizes.filter((s) => s.bytes === bytes).map(pick));
  const sizes = off[0]?.sizes.map((s) => s.bytes) ?? [];
  const latency = sizes.map((bytes) => {
    const [a, b] = [off, on].map((r) => values(r, bytes, (s) => s.latencyUs)) as [number[], number[]];
    const spread = { offUs: figure(a), onUs: figure(b), ratio: figure(pairedRatios(b, a), 4) };
    return {
      bytes,
      offUs: spread.offUs.median,
      onUs: spread.onUs.median,
      ratio: spread.ratio.median,
      spread,
    };
  });
  const bandwidth = sizes.map((bytes) => {
    const [a, b] = [off, on].map((r) => values(r, bytes, (s) => s.bytesPerSecond / 1e6)) as [
      number[],
      number[],
    ];
    const spread = { offMBps: figure(a), onMBps: figure(b), ratio: figure(pairedRatios(b, a), 4) };
    return {
      bytes,
      offMBps: spread.offMBps.median,
      onMBps: spread.onMBps.median,
      ratio: spread.ratio.median,
      spread,
    };
  });
  return { latency, bandwidth };
}

function messageRate({ off, on }: TimedPairs) {
  const bytes = off[0]?.sizes[0]?.bytes ?? 0;
  const rates = (results: TimedResult[]) =>
    results.flatMap((r) => r.sizes.slice(0, 1).map((s) => s.bytesPerSecond / s.bytes));
  const [a, b] = [rates(off), rates(on)];
  const spread = {
    ...{ offPerSecond: figure(a, 1), onPerSecond: figure(b, 1) },
    ratio: figure(pairedRatios(b, a), 4),
  };
  return {
    ...{ bytes, offPerSecond: spread.offPerSecond.median, onPerSecond: spread.onPerSecond.median },
    ...{ ratio: spread.ratio.median, spread },
  };
}

/** The runs of both variants, one next to the other. */
export async function timePairs(
  runs: number,
  what: string,
  say: (line: string) => void,
  run: (variant: "off" | "on") => Promise<TimedResult>,
): Promise<TimedPairs> {
  const pairs: TimedPairs = { off: [], on: [] };
  for (let i = 0; i < runs; i++)
    // Who goes first changes, so that neither always has the warmer machine.
    for (const variant of i % 2 === 0 ? (["off", "on"] as const) : (["on", "off"] as const)) {
      const started = performance.now();
      pairs[variant].push(await run(variant));
      const seconds = ((performance.now() - started) / 1000).toFixed(1);
      say(`times over ${what}, run ${i + 1} of ${runs}, ${variant}: ${seconds} s`);
    }
  return pairs;
}

async function countAll(
  socket: string,
  options: OverheadOptions,
): Promise<OverheadReport["instructionsPerMessage"]> {
  const { countRuns, say, signal } = options;
  if (countRuns === 0) return null;
  if (!hasValgrind()) {
    say("note: valgrind is not installed: no instruction counts");
    return null;
  }
  const counts: Record<Variant, number[]> = { off: [], inert: [], on: [] };
  for (let i = 0; i < countRuns; i++)
    for (const variant of variants) {
      const count = await instructionsPerMessage(variant, socket, signal);
      counts[variant].push(count);
      say(`instructions, run ${i + 1} of ${countRuns}, ${variant}: ${count.toFixed(1)} per message`);
    }
  const spread = {
    ...{ off: figure(counts.off, 2), inert: figure(counts.inert, 2), on: figure(counts.on, 2) },
    onOverOff: figure(pairedRatios(counts.on, counts.off), 4),
  };
  return {
    bytes: 8,
    ...{ off: spread.off.median, inert: spread.inert.median, on: spread.on.median },
    onOverOff: spread.onOverOff.median,
    spread,
  };
}

export async function runOverhead(options: OverheadOptions): Promise<OverheadReport> {
  const { runs, bytes, seconds, say, signal } = options;
  const machine = describeMachine();
  const agent = await startAgent(signal);
  try {
    const instructions = await countAll(agent.socket, options);
    const args = ["--mode", "time", "--bytes", bytes.join(","), "--seconds", String(seconds)];
    const pairs = await timePairs(runs, "tcp", say, async (variant) =>
      parseTimed(await runPingPong({ variant, socket: agent.socket, args, signal }, 100)),
    );
    const openib = await options.openib?.({ runs, bytes, seconds });
    return overheadReport.parse({
      ...{ schemaVersion: 1, bench: "overhead", machine, instructionsPerMessage: instructions },
      ...comparePairs(pairs),
      openib:
        openib === undefined
          ? null
          : {
              accelerator: openib.accelerator,
              ...comparePairs(openib.pairs),
              messageRate: messageRate(openib.pairs),
            },
    });
  } finally {
    await agent.stop();
  }
}
