/**
 * The JSON of the benches. Every number of interest is a median and stands under its own name; `spread`
 * beside it has runs, median, minimum and maximum under the same name.
 */
import { z } from "zod";

export const figureSchema = z
  .strictObject({
    runs: z.number().int().min(1),
    median: z.number(),
    min: z.number(),
    max: z.number(),
  })
  .refine(({ median, min, max }) => min <= median && median <= max, "min <= median <= max");

const spread = <K extends string>(...names: readonly [K, ...K[]]) =>
  z.strictObject(
    Object.fromEntries(names.map((name) => [name, figureSchema])) as Record<K, typeof figureSchema>,
  );

/** Where and when: figures of two machines must not be compared by accident. */
export const machineSchema = z.strictObject({
  date: z.iso.datetime(),
  cpus: z.number().int().min(1),
  cpuModel: z.string(),
  kernel: z.string(),
  /** Load average of one minute when the bench began: other work makes times (not instructions) worthless. */
  loadAtStart: z.number().min(0),
});

const latencyOfSize = z.strictObject({
  bytes: z.number().int(),
  offUs: z.number(),
  onUs: z.number(),
  /** on / off. */
  ratio: z.number(),
  spread: spread("offUs", "onUs", "ratio"),
});

const bandwidthOfSize = z.strictObject({
  bytes: z.number().int(),
  offMBps: z.number(),
  onMBps: z.number(),
  ratio: z.number(),
  spread: spread("offMBps", "onMBps", "ratio"),
});

const timesBySize = { latency: z.array(latencyOfSize), bandwidth: z.array(bandwidthOfSize) };

/** With the inert library as well; inertRatio is inert / off. */
const timesOfThree = {
  latency: z.array(
    latencyOfSize.extend({
      inertUs: z.number().optional(),
      inertRatio: z.number().optional(),
      spread: latencyOfSize.shape.spread.extend({
        inertUs: figureSchema.optional(),
        inertRatio: figureSchema.optional(),
      }),
    }),
  ),
  bandwidth: z.array(
    bandwidthOfSize.extend({
      inertMBps: z.number().optional(),
      inertRatio: z.number().optional(),
      spread: bandwidthOfSize.shape.spread.extend({
        inertMBps: figureSchema.optional(),
        inertRatio: figureSchema.optional(),
      }),
    }),
  ),
};

export const overheadReport = z.strictObject({
  schemaVersion: z.literal(1),
  bench: z.literal("overhead"),
  machine: machineSchema,
  /** Of both ranks, in user space, without polling; null when valgrind is missing or was not wanted. */
  instructionsPerMessage: z
    .strictObject({
      bytes: z.literal(8),
      off: z.number(),
      inert: z.number(),
      on: z.number(),
      onOverOff: z.number(),
      spread: spread("off", "inert", "on", "onOverOff"),
    })
    .nullable(),
  /** On this host, over BTL/tcp. */
  ...timesOfThree,
  /** In the lab, over openib; null when it was not wanted. */
  openib: z
    .strictObject({
      accelerator: z.enum(["kvm", "tcg"]),
      /** As above, of two ranks in one guest; null when valgrind is missing or was not wanted. */
      instructionsPerMessage: z
        .strictObject({
          bytes: z.literal(8),
          off: z.number(),
          on: z.number(),
          onOverOff: z.number(),
          spread: spread("off", "on", "onOverOff"),
        })
        .nullable(),
      ...timesBySize,
      /** Of the smallest size, 16 on their way. */
      messageRate: z.strictObject({
        bytes: z.number().int(),
        offPerSecond: z.number(),
        onPerSecond: z.number(),
        ratio: z.number(),
        spread: spread("offPerSecond", "onPerSecond", "ratio"),
      }),
    })
    .nullable(),
});
export type OverheadReport = z.infer<typeof overheadReport>;

const strategyGaps = { live: z.number(), park: z.number(), spread: spread("live", "park") };

export const blackoutReport = z.strictObject({
  schemaVersion: z.literal(1),
  bench: z.literal("blackout"),
  machine: machineSchema,
  accelerator: z.enum(["kvm", "tcg"]),
  live: z.strictObject({ gapMs: z.number(), spread: spread("gapMs") }),
  park: z.strictObject({ gapMs: z.number(), spread: spread("gapMs") }),
  bare: z.strictObject({ downtimeMs: z.number(), spread: spread("downtimeMs") }),
  liveOverPark: z.number(),
  byMemory: z.array(z.strictObject({ memoryMiB: z.number().int(), ...strategyGaps })),
  byLinkUp: z.array(z.strictObject({ delayS: z.number(), ...strategyGaps })),
});
export type BlackoutReport = z.infer<typeof blackoutReport>;

/** One way of ending pre-copy, over all runs. `totalS` of a run that was not completed is the time until it was rolled back. */
const wayOfConverging = z.strictObject({
  totalS: z.number(),
  gapMs: z.number(),
  /** Every run was. */
  completed: z.boolean(),
  completedRuns: z.number().int().min(0),
  spread: spread("totalS", "gapMs"),
});

export const convergenceReport = z.strictObject({
  schemaVersion: z.literal(1),
  bench: z.literal("convergence"),
  machine: machineSchema,
  accelerator: z.enum(["kvm", "tcg"]),
  bandwidthBytesPerSecond: z.number(),
  megabytes: z.number(),
  parkAfterS: z.number(),
  capS: z.number(),
  cooperative: wayOfConverging,
  autoConverge: wayOfConverging,
});
export type ConvergenceReport = z.infer<typeof convergenceReport>;

/** One way of capturing a job's VMs. */
const wayOfCapturing = z.strictObject({
  /** Each VM stood still so long; of all VMs and runs. */
  pauseMs: z.number(),
  /** No VM reached another. */
  withoutNetworkMs: z.number(),
  /** Of the job's iterations, less an undisturbed one. */
  gapMs: z.number(),
  /** The whole checkpoint, from the drain to openib. */
  totalS: z.number(),
  spread: spread("pauseMs", "withoutNetworkMs", "gapMs", "totalS"),
});
const checkpointFigures = {
  background: wayOfCapturing,
  stopAndSave: wayOfCapturing,
  /** QEMU's own `snapshot-save`, one VM after the other and without a job: it has no consistent cut. */
  snapshotSave: z.strictObject({ pauseMs: z.number(), spread: spread("pauseMs") }),
  /** Of one checkpoint by background snapshots. */
  bytes: z.strictObject({ raw: z.number(), stored: z.number() }),
  restartS: z.number(),
  spread: spread("restartS"),
};

export const checkpointReport = z.strictObject({
  schemaVersion: z.literal(1),
  bench: z.literal("checkpoint"),
  machine: machineSchema,
  accelerator: z.enum(["kvm", "tcg"]),
  /** With the first memory, as everything but `byMemory`. */
  pauseMs: z.strictObject({
    background: z.number(),
    stopAndSave: z.number(),
    snapshotSave: z.number(),
    spread: spread("background", "stopAndSave", "snapshotSave"),
  }),
  bytes: checkpointFigures.bytes,
  restartS: z.number(),
  byMemory: z.array(z.strictObject({ memoryMiB: z.number().int(), ...checkpointFigures })),
});
export type CheckpointReport = z.infer<typeof checkpointReport>;
