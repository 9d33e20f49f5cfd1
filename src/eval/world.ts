/** What an evaluation needs of the world: the lab gives it the real one, its tests a scripted one. */
import type { JobResult } from "../demo/job-log.js";
import type { Workload } from "./plan.js";

export interface PhaseTime {
  phase: string;
  ms: number;
}

/** What one operation did to the job. Its phases follow one another, also where a job runs on in them. */
export interface Disturbance {
  phases: PhaseTime[];
  /** Beside pre-copy: the ranks of the moving VM stood still that long so that it could end. */
  heldMs: number;
}

export interface JobEnd {
  exitCode: number;
  /** Null when it said nothing that can be read. */
  result: JobResult | null;
  /** From the start of the job's clock to its last iteration, by the host's clock. */
  totalMs: number;
  /** What it said last, for the message of a failure. */
  words: string;
}

export interface EvalJob {
  /** Resolves when so many iterations are done. Fails if the job ends before that, or stands still. */
  reach(iteration: number): Promise<void>;
  /** Whether it has ended by itself. */
  readonly hasEnded: boolean;
  /** Resolves when it has ended by itself; fails if it stands still. */
  end(): Promise<JobEnd>;
}

export interface Checkpointing {
  /** Takes a checkpoint of the job, which goes on. */
  checkpoint(): Promise<Disturbance>;
  /** Kills all VMs and starts them from the checkpoint; the job handed out by `start` goes on being followed. */
  restart(): Promise<Disturbance>;
}

export interface EvalWorld {
  readonly accelerator: "kvm" | "tcg";
  /** Ranks of a job. */
  readonly ranks: number;
  /** Starts a job over all VMs; resolves when every rank runs over openib. */
  start(workload: Workload, args: readonly string[]): Promise<EvalJob>;
  /** Moves the VM that carries no rank 0. Fails unless the cycle is done by that strategy and the ranks use the card again. */
  migrate(strategy: "live" | "park"): Promise<Disturbance>;
  /** Absent where this build of symvirt has no such verbs. */
  readonly checkpointing?: Checkpointing;
  /** After a failure: ends the job by force. Returns what makes the lab useless, else "". */
  clearUp(): Promise<string>;
}
