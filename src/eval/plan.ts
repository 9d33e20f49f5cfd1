/** What is run: workloads, modes, and what a size means to each workload. */

/** Programs of test/workloads, in the order of the paper: its micro benchmark first. */
export const workloads = ["memtest", "cg", "ft", "lu", "is"] as const;
export type Workload = (typeof workloads)[number];

/**
 * What happens to the job: nothing; its VM vm2 moves once by that strategy; all of it is checkpointed, goes on, is
 * killed with its VMs, and restarted from the checkpoint.
 */
export const modes = ["none", "park", "live", "checkpoint"] as const;
export type Mode = (typeof modes)[number];

/** Not the classes of the NAS benchmarks: these are other programs. */
export const sizes = ["small", "medium", "large"] as const;
export type Size = (typeof sizes)[number];

const options: Record<Workload, { option: string; values: Record<Size, number> }> = {
  memtest: { option: "--megabytes", values: { small: 16, medium: 64, large: 256 } },
  cg: { option: "--size", values: { small: 2 ** 12, medium: 2 ** 15, large: 2 ** 18 } },
  ft: { option: "--size", values: { small: 128, medium: 512, large: 2048 } },
  lu: { option: "--size", values: { small: 32, medium: 64, large: 128 } },
  is: { option: "--size", values: { small: 2 ** 16, medium: 2 ** 19, large: 2 ** 22 } },
};

/** The arguments by which a workload has a size. */
export function sizeArguments(workload: Workload, size: Size): string[] {
  const { option, values } = options[workload];
  return [option, String(values[size])];
}

export interface EvalPlan {
  workloads: readonly Workload[];
  /** "none" is always done, and first: the others are held against it. */
  modes: readonly Mode[];
  size: Size;
  /** The undisturbed job runs that long; the others do as many iterations as it did. */
  seconds: number;
  /** Instead of `seconds`. */
  iterations?: number;
}

/** The modes in the order they are done. */
export function courseOf(plan: EvalPlan): Mode[] {
  return modes.filter((mode) => mode === "none" || plan.modes.includes(mode));
}
