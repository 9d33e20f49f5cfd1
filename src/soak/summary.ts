/** What a soak has found: a line a cycle, and the sum. */
import { type FaultKind, faultKinds } from "../testbed/fault.js";

export interface CycleResult {
  number: number;
  of: number;
  program: string;
  vm: string;
  to: string;
  /** What was done, which may be park where live was asked for. */
  strategy: "live" | "park";
  /** Milliseconds from its begin to its end. */
  totalMs: number;
  downtimeMs: number;
}

export interface FoundFault {
  kind: FaultKind;
  /** Number of the cycle it came up in or after. */
  cycle: number;
  message: string;
}

export function cycleLine(r: CycleResult): string {
  const number = String(r.number).padStart(String(r.of).length);
  const seconds = (r.totalMs / 1000).toFixed(1).padStart(5);
  return `cycle ${number}/${r.of} ${r.program.padEnd(11)} ${r.strategy} ${r.vm} to ${r.to}: ok, ${seconds} s, downtime ${r.downtimeMs} ms`;
}

export function faultLine({ kind, cycle, message }: FoundFault): string {
  return `cycle ${cycle}: ${kind.toUpperCase()}: ${message}`;
}

export interface SoakResult {
  seed: number;
  planned: number;
  jobs: number;
  cycles: readonly CycleResult[];
  faults: readonly FoundFault[];
}

/** Everything planned was done, and nothing was found. */
export function isGood({ planned, cycles, faults }: SoakResult): boolean {
  return faults.length === 0 && cycles.length === planned;
}

export function summaryLines(result: SoakResult): string[] {
  const { seed, planned, jobs, cycles, faults } = result;
  const of = (strategy: string) => cycles.filter((c) => c.strategy === strategy).length;
  const counts = faultKinds.map((kind) => `${faults.filter((f) => f.kind === kind).length} ${kind}`);
  return [
    ...faults.map(faultLine),
    `soak, seed ${seed}: ${cycles.length} of ${planned} cycles done (${of("live")} live, ${of("park")} park) under ${jobs} jobs: ${counts.join(", ")}`,
  ];
}
