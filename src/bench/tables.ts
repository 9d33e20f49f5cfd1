/** The figures as plain text. */
import { textTable } from "../demo/tables.js";
import type { BlackoutReport, CheckpointReport, ConvergenceReport, OverheadReport } from "./results.js";
import type { Figure } from "./statistics.js";

const spell = (f: Figure, digits: number): string[] =>
  [f.median, f.min, f.max].map((value) => value.toFixed(digits));

const head = ["runs", "median", "min", "max"];

const times = ["bytes", "off", "on", "inert", "runs", "on/off", "min", "max", "inert/off", "min", "max"];

function timesLines(where: string, { latency, bandwidth }: Pick<OverheadReport, "latency" | "bandwidth">) {
  const rest = (ratio: Figure, inert: Figure | undefined) => [
    ...[`${ratio.runs}`, ...spell(ratio, 4)],
    ...(inert === undefined ? ["-", "-", "-"] : spell(inert, 4)),
  ];
  return [
    "",
    `Latency ${where} (half of there and back), microseconds; ratios of runs next to each other`,
    ...textTable(
      times,
      latency.map(({ bytes, offUs, onUs, inertUs, spread }) => [
        ...[`${bytes}`, offUs.toFixed(2), onUs.toFixed(2), inertUs?.toFixed(2) ?? "-"],
        ...rest(spread.ratio, spread.inertRatio),
      ]),
      0,
    ),
    "",
    `Bandwidth ${where} (16 messages on their way), MB/s; ratios of runs next to each other`,
    ...textTable(
      times,
      bandwidth.map(({ bytes, offMBps, onMBps, inertMBps, spread }) => [
        ...[`${bytes}`, offMBps.toFixed(2), onMBps.toFixed(2), inertMBps?.toFixed(2) ?? "-"],
        ...rest(spread.ratio, spread.inertRatio),
      ]),
      0,
    ),
  ];
}

type Counts = Record<"off" | "on" | "onOverOff", Figure> & { inert?: Figure };

function countLines(where: string, counts: { spread: Counts } | null): string[] {
  if (counts === null) return [`Instructions per message ${where}: not counted`];
  const { off, inert, on, onOverOff } = counts.spread;
  const row = (name: string, f: Figure, digits: number) => [name, `${f.runs}`, ...spell(f, digits)];
  return [
    `User-space instructions of both ranks per message of 8 bytes ${where}`,
    ...textTable(
      ["library", ...head],
      [
        row("off", off, 1),
        ...(inert === undefined ? [] : [row("inert", inert, 1)]),
        ...[row("on", on, 1), row("on / off", onOverOff, 4)],
      ],
      1,
    ),
  ];
}

export function overheadLines(report: OverheadReport): string[] {
  const { instructionsPerMessage, openib } = report;
  return [
    ...countLines("on this host, over tcp", instructionsPerMessage),
    ...timesLines("on this host, over tcp", report),
    "",
    ...(openib === null
      ? ["Over openib: not measured"]
      : [
          ...countLines("in a guest, over openib", openib.instructionsPerMessage),
          ...timesLines(`between two guests, over openib (${openib.accelerator})`, openib),
          "",
          `Messages of ${openib.messageRate.bytes} bytes a second over openib; ratio of pairs on / off`,
          ...textTable(
            ["off", "on", "runs", "ratio", "min", "max"],
            [
              [
                openib.messageRate.offPerSecond.toFixed(0),
                openib.messageRate.onPerSecond.toFixed(0),
                `${openib.messageRate.spread.ratio.runs}`,
                ...spell(openib.messageRate.spread.ratio, 4),
              ],
            ],
            0,
          ),
        ]),
  ];
}

export function blackoutLines(report: BlackoutReport): string[] {
  const row = (name: string, f: Figure) => [name, `${f.runs}`, ...spell(f, 1)];
  return [
    `Longest gap of the job in a cycle less an undisturbed iteration, milliseconds (${report.accelerator})`,
    ...textTable(
      ["", ...head],
      [
        row("live", report.live.spread.gapMs),
        row("park", report.park.spread.gapMs),
        row("QEMU's downtime, no job", report.bare.spread.downtimeMs),
        ...report.byMemory.flatMap(({ memoryMiB, spread }) => [
          row(`live, ${memoryMiB} MiB`, spread.live),
          row(`park, ${memoryMiB} MiB`, spread.park),
        ]),
        ...report.byLinkUp.flatMap(({ delayS, spread }) => [
          row(`live, port up after ${delayS} s`, spread.live),
          row(`park, port up after ${delayS} s`, spread.park),
        ]),
      ],
      1,
    ),
    `live / park: ${report.liveOverPark.toFixed(3)}`,
  ];
}

export function convergenceLines(report: ConvergenceReport): string[] {
  const { bandwidthBytesPerSecond, megabytes, parkAfterS, capS } = report;
  const rows = (["cooperative", "autoConverge"] as const).flatMap((way) => {
    const { spread, completedRuns } = report[way];
    const completed = `${completedRuns} of ${spread.totalS.runs}`;
    return [
      [`${way}, whole cycle, s`, completed, ...spell(spread.totalS, 1)],
      [`${way}, longest gap, ms`, completed, ...spell(spread.gapMs, 1)],
    ];
  });
  return [
    `Each rank stamps ${megabytes} MiB, the stream carries ${(bandwidthBytesPerSecond / 2 ** 20).toFixed(1)} MiB/s (${report.accelerator});`,
    `ranks held after ${parkAfterS} s, rolled back after ${capS} s`,
    ...textTable(["", "completed", "median", "min", "max"], rows, 1),
  ];
}

export function checkpointLines(report: CheckpointReport): string[] {
  const row = (name: string, f: Figure) => [name, `${f.runs}`, ...spell(f, 1)];
  return report.byMemory.flatMap(
    ({ memoryMiB, background, stopAndSave, snapshotSave, bytes, spread: { restartS } }) => [
      `${memoryMiB} MiB a VM (${report.accelerator}); ${(bytes.raw / 2 ** 20).toFixed(0)} MiB captured, ${(bytes.stored / 2 ** 20).toFixed(0)} MiB stored`,
      ...textTable(
        ["", ...head],
        [
          ...(
            [
              ["background snapshot", background],
              ["stop and save", stopAndSave],
            ] as const
          ).flatMap(([name, { spread }]) => [
            row(`${name}: a VM stands still, ms`, spread.pauseMs),
            row(`${name}: without network, ms`, spread.withoutNetworkMs),
            row(`${name}: longest gap of the job, ms`, spread.gapMs),
            row(`${name}: whole checkpoint, s`, spread.totalS),
          ]),
          row("QEMU's snapshot-save: a VM stands still, ms", snapshotSave.spread.pauseMs),
          row("restart, s", restartS),
        ],
        1,
      ),
      "",
    ],
  );
}
