/** What a timeline is drawn from. All times are milliseconds since the cycle began. */
import type { CycleReport } from "../controller/report.js";

export interface Bytes {
  openib: number;
  tcp: number;
}

/** Payload bytes a rank moved (sent and received) before, during and after the cycle. */
export interface RouteBytes {
  rank: number;
  vm: string;
  before: Bytes;
  during: Bytes;
  after: Bytes;
}

/** A progress report of the job. */
export interface IterationSample {
  atMs: number;
  iteration: number;
  /** Longest pause between two iterations since the sample before; it ended at this sample if it is long. */
  gapMs: number;
}

/** A fact shown at the top of the page. */
export interface Figure {
  label: string;
  value: string;
}

export interface TimelineInput {
  cycle: CycleReport;
  /** Name of the program. */
  job: string;
  samples: readonly IterationSample[];
  routes: readonly RouteBytes[];
  /** Further facts (checksum, iterations, …). */
  figures: readonly Figure[];
}
