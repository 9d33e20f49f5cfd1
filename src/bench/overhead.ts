/** Bench `overhead`: what the library costs a job that nobody moves. */
import { execFileSync } from "node:child_process";
import { startAgent } from "./bench-agent.js";
import { instructionsPerMessage } from "./instructions.js";
import { describeMachine } from "./machine.js";
import { parseTimed, runPingPong, type TimedResult, variants } from "./pingpong.js";
import { type OverheadReport, overheadReport } from "./results.js";
import { figure, pairedRatios } from "./statistics.js";

/** Over openib there is no inert library: it brings the connection manager (docs/benchmarks.md). */
export const openibVariants = ["off", "on"] as const;

/** Runs in the lab, over openib. */
export interface OpenibPairs {
  accelerator: "kvm" | "tcg";
  /** Instructions per message; null when they were not wanted. */
  counts: Runs<"off" | "on", number> | null;
  pairs: Runs<"off" | "on", TimedResult>;
}

/** Runs of the variants: entry i of one was measured next to entry i of the others. */
export type Runs<V extends string, R> = Record<V, R[]>;

export interface OverheadOptions {
  /** Interleaved repetitions of the times. */
  runs: number;
  /** Repetitions of the instruction counts, which hardly vary; 0: none. */
  countRuns: number;
  bytes: readonly number[];
  /** For each size and measurement. */
  seconds: number;
  /** Measures over openib, with these sizes; absent: that is left out. */
  openib?: (
    options: Pick<OverheadOptions, "runs" | "countRuns" | "bytes" | "seconds">,
  ) => Promise<OpenibPairs>;
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

type Comparable = Runs<"off" | "on", TimedResult> & Partial<Runs<"inert", TimedResult>>;

/** Latency and bandwidth by size; ratios are on/off and inert/off, of runs next to each other. */
export function comparePairs({ off, on, inert }: Comparable): Pick<OverheadReport, "latency" | "bandwidth"> {
  const sizes = off[0]?.sizes.map((s) => s.bytes) ?? [];
  const compare = (bytes: number, pick: (s: TimedResult["sizes"][number]) => number) => {
    const values = (results: TimedResult[]) =>
      results.flatMap((r) => r.sizes.filter((s) => s.bytes === bytes).map(pick));
    const [a, b] = [values(off), values(on)];
    const c = inert === undefined ? undefined : values(inert);
    return {
      ...{ off: figure(a), on: figure(b), ratio: figure(pairedRatios(b, a), 4) },
      inert: c && { value: figure(c), ratio: figure(pairedRatios(c, a), 4) },
    };
  };
  const latency = sizes.map((bytes) => {
    const { off: offUs, on: onUs, ratio, inert: third } = compare(bytes, (s) => s.latencyUs);
    return {
      ...{ bytes, offUs: offUs.median, onUs: onUs.median, ratio: ratio.median },
      ...(third && { inertUs: third.value.median, inertRatio: third.ratio.median }),
      spread: { offUs, onUs, ratio, ...(third && { inertUs: third.value, inertRatio: third.ratio }) },
    };
  });
  const bandwidth = sizes.map((bytes) => {
    const { off: offMBps, on: onMBps, ratio, inert: third } = compare(bytes, (s) => s.bytesPerSecond / 1e6);
    return {
      ...{ bytes, offMBps: offMBps.median, onMBps: onMBps.median, ratio: ratio.median },
      ...(third && { inertMBps: third.value.median, inertRatio: third.ratio.median }),
      spread: { offMBps, onMBps, ratio, ...(third && { inertMBps: third.value, inertRatio: third.ratio }) },
    };
  });
  return { latency, bandwidth };
}

function messageRate({ off, on }: Runs<"off" | "on", TimedResult>) {
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

/** Runs of all variants in turn; who goes first changes, so that none always has the warmer machine. */
export async function interleaved<V extends string, R>(
  runs: number,
  names: readonly V[],
  run: (variant: V, number: number) => Promise<R>,
): Promise<Runs<V, R>> {
  const results = Object.fromEntries(names.map((name): [V, R[]] => [name, []])) as unknown as Runs<V, R>;
  for (let i = 0; i < runs; i++) {
    const first = i % names.length;
    for (const name of [...names.slice(first), ...names.slice(0, first)])
      results[name].push(await run(name, i + 1));
  }
  return results;
}

export function timePairs<V extends string>(
  runs: number,
  names: readonly V[],
  what: string,
  say: (line: string) => void,
  run: (variant: V) => Promise<TimedResult>,
): Promise<Runs<V, TimedResult>> {
  return interleaved(runs, names, async (variant, number) => {
    const started = performance.now();
    const result = await run(variant);
    const seconds = ((performance.now() - started) / 1000).toFixed(1);
    say(`times over ${what}, run ${number} of ${runs}, ${variant}: ${seconds} s`);
    return result;
  });
}

async function countAll(
  socket: string,
  options: OverheadOptions,
): Promise<OverheadReport["instructionsPerMessage"]> {
  const { countRuns, say, signal } = options;
  if (countRuns === 0) return null;
  const counts = await interleaved(countRuns, variants, async (variant, run) => {
    const count = await instructionsPerMessage(variant, socket, signal);
    say(`instructions, run ${run} of ${countRuns}, ${variant}: ${count.toFixed(1)} per message`);
    return count;
  });
  const { off, on, onOverOff, spread } = countFigures(counts);
  const inert = figure(counts.inert, 2);
  return { bytes: 8, off, inert: inert.median, on, onOverOff, spread: { ...spread, inert } };
}

function countFigures(counts: Runs<"off" | "on", number>) {
  const spread = {
    ...{ off: figure(counts.off, 2), on: figure(counts.on, 2) },
    onOverOff: figure(pairedRatios(counts.on, counts.off), 4),
  };
  return {
    ...{ off: spread.off.median, on: spread.on.median, onOverOff: spread.onOverOff.median },
    spread,
  };
}

/** A run without valgrind counts no instructions, and says so. */
function withoutValgrind(options: OverheadOptions): OverheadOptions {
  if (options.countRuns === 0 || hasValgrind()) return options;
  options.say("note: valgrind is not installed: no instruction counts");
  return { ...options, countRuns: 0 };
}

export async function runOverhead(asked: OverheadOptions): Promise<OverheadReport> {
  const options = withoutValgrind(asked);
  const { runs, countRuns, bytes, seconds, say, signal } = options;
  const machine = describeMachine();
  const agent = await startAgent(signal);
  try {
    const instructions = await countAll(agent.socket, options);
    const args = ["--mode", "time", "--bytes", bytes.join(","), "--seconds", String(seconds)];
    const pairs = await timePairs(runs, variants, "tcp", say, async (variant) =>
      parseTimed(await runPingPong({ variant, socket: agent.socket, args, signal }, 100)),
    );
    const openib = await options.openib?.({ runs, countRuns, bytes, seconds });
    return overheadReport.parse({
      ...{ schemaVersion: 1, bench: "overhead", machine, instructionsPerMessage: instructions },
      ...comparePairs(pairs),
      openib:
        openib === undefined
          ? null
          : {
              accelerator: openib.accelerator,
              instructionsPerMessage: openib.counts && { bytes: 8, ...countFigures(openib.counts) },
              ...comparePairs(openib.pairs),
              messageRate: messageRate(openib.pairs),
            },
    });
  } finally {
    await agent.stop();
  }
}
