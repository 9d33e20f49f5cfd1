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

/** A rank's counters at one moment: payload bytes, sent and received, since the job's start. */
export interface CounterSample extends Bytes {
  ms: number;
}

/** What was measured of one rank, in the order of time. */
export interface RankTraffic {
  rank: number;
  vm: string;
  samples: readonly CounterSample[];
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
  bands: readonly RankTraffic[];
  /** Further facts (checksum, iterations, …). */
  figures: readonly Figure[];
}
