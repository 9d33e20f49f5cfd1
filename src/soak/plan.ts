/** What a soak does, decided by its seed alone: stretches of cycles, each under one job. */
import { type Random, random } from "../testbed/random.js";

export interface PlannedCycle {
  strategy: "live" | "park";
  vm: string;
  /** Which of the hosts where no VM runs, from 0, in the order of the cluster file. */
  freeHost: number;
  /** The job runs that long before it, in milliseconds. */
  pauseMs: number;
}

export interface Stretch {
  program: string;
  args: readonly string[];
  cycles: readonly PlannedCycle[];
}

export interface SoakShape {
  seed: number;
  /** Of all stretches together. */
  cycles: number;
  vms: readonly string[];
  freeHosts: number;
}

/** Shortest and longest stretch: a job must live through several cycles, and there must be several jobs. */
const SHORTEST = 3;
const LONGEST = 8;
/** Longer than an iteration of any workload, so that a cycle may begin anywhere in one. */
const MOST_PAUSE_MS = 4000;

const workloads: readonly Pick<Stretch, "program" | "args">[] = [
  { program: "ring", args: [] },
  { program: "sizes", args: [] },
  { program: "collectives", args: [] },
  { program: "stencil", args: [] },
  { program: "onesided", args: [] },
  { program: "churn", args: [] },
  { program: "late", args: ["--compute", "2"] },
];

function cycle(numbers: Random, { vms, freeHosts }: SoakShape): PlannedCycle {
  return {
    strategy: numbers.of(["live", "park"] as const),
    vm: numbers.of(vms),
    freeHost: numbers.below(freeHosts),
    pauseMs: numbers.below(MOST_PAUSE_MS),
  };
}

/** All of a soak, in order. */
export function planSoak(shape: SoakShape): Stretch[] {
  const numbers = random(shape.seed);
  const stretches: Stretch[] = [];
  for (let left = shape.cycles; left > 0;) {
    const length = Math.min(left, SHORTEST + numbers.below(LONGEST - SHORTEST + 1));
    const { program, args } = numbers.of(workloads);
    // Other data each time (workload.c, --seed).
    const seed = ["--seed", String(1 + numbers.below(1e6))];
    const cycles = Array.from({ length }, () => cycle(numbers, shape));
    stretches.push({ program, args: [...args, ...seed], cycles });
    left -= length;
  }
  return stretches;
}
