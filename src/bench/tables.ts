/** The figures as plain text. */
import { textTable } from "../demo/tables.js";
import type { BlackoutReport, CheckpointReport, ConvergenceReport, OverheadReport } from "./results.js";
import type { Figure } from "./statistics.js";

const spell = (f: Figure, digits: number): string[] =>
  [f.median, f.min, f.max].map((value) => value.toFixed(digits));

const head = ["runs", "median", "min", "max"];

function timesLines(where: string, { latency, bandwidth }: Pick<OverheadReport, "latency" | "bandwidth">) {
  return [
    "",
    `Latency ${where} (half of there and back), microseconds; ratio of pairs on / off`,
    ...textTable(
      ["bytes", "off", "on", "runs", "ratio", "min", "max"],
      latency.map((l) => [
        ...[`${l.bytes}`, l.offUs.toFixed(2), l.onUs.toFixed(2), `${l.spread.ratio.runs}`],
        ...spell(l.spread.ratio, 4),
      ]),
      0,
    ),
    "",
    `Bandwidth ${where} (16 messages on their way), MB/s; ratio of pairs on / off`,
    ...textTable(
      ["bytes", "off", "on", "runs", "ratio", "min", "max"],
      bandwidth.map((b) => [
        ...[`${b.bytes}`, b.offMBps.toFixed(2), b.onMBps.toFixed(2), `${b.spread.ratio.runs}`],
        ...spell(b.spread.ratio, 4),
      ]),
      0,
    ),
  ];
}

export function overheadLines({
  instructionsPerMessage: counts,
  latency,
  bandwidth,
  openib,
}: OverheadReport): string[] {
  const instructions =
    counts === null
      ? ["Instructions per message: not counted"]
      : [
          "User-space instructions of both ranks per message of 8 bytes",
          ...textTable(
            ["library", ...head],
            (["off", "inert", "on", "onOverOff"] as const).map((key) => [
              key === "onOverOff" ? "on / off" : key,
              `${counts.spread[key].runs}`,
              ...spell(counts.spread[key], key === "onOverOff" ? 4 : 1),
            ]),
            1,
          ),
        ];
  return [
    ...instructions,
    ...timesLines("on this host, over tcp", { latency, bandwidth }),
    ...(openib === null
      ? ["", "Over openib: not measured"]
      : [
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
