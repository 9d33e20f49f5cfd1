/** One band a rank: its colour says which route carried its traffic, the height of the bars how much of it. */
import type { CycleReport } from "../controller/report.js";
import { Drawing, type LegendItem, left } from "./drawing.js";
import { escapeText } from "./escape.js";
import type { RankTraffic } from "./input.js";
import { rankBands } from "./rank-bands.js";
import { formatBytes, formatMs, type Scale } from "./scale.js";
import {
  type Carrier,
  type CarrierRun,
  carrierRuns,
  peakRate,
  rateOf,
  type TrafficSpan,
  trafficSpans,
} from "./traffic-spans.js";

const height = 26;
const gap = 6;
/** Where something moved, something is seen. */
const least = 2;

const words: Readonly<Record<Carrier, string>> = { openib: "openib", tcp: "tcp", none: "nothing moved" };
const legend: readonly LegendItem[] = [
  { kind: "b-openib", words: "over openib" },
  { kind: "b-tcp", words: "over tcp" },
  { kind: "b-none", words: "nothing moved" },
];
/** What a held rank says it does; the others carry traffic all the time. */
const ownStates = ["drain", "held", "re-init"] as const;

function when({ fromMs, toMs }: { fromMs: number; toMs: number }): string {
  return `${formatMs(fromMs)} to ${formatMs(toMs)}`;
}

function amounts({ openib, tcp }: TrafficSpan): string {
  return `openib ${formatBytes(openib)}, tcp ${formatBytes(tcp)}`;
}

function isSeen(scale: Scale): (span: { fromMs: number; toMs: number }) => boolean {
  return ({ fromMs, toMs }) => toMs > scale.fromMs && fromMs < scale.toMs;
}

/** The bars of one span, openib below tcp. */
function bars(scale: Scale, span: TrafficSpan, base: number, peak: number, label: string): string {
  const from = scale.x(span.fromMs);
  const wide = scale.x(span.toMs) - from;
  const total = span.openib + span.tcp;
  if (total === 0 || wide <= 0) return "";
  const high = Math.min(Math.max((rateOf(span) / peak) * height, least), height);
  const tip = `<title>${escapeText(`${label}, ${when(span)}: ${amounts(span)}`)}</title>`;
  let y = base;
  return (["openib", "tcp"] as const)
    .map((route) => {
      const part = (span[route] / total) * high;
      if (part === 0) return "";
      y -= part;
      return `<path class="b-${route}" d="M${from} ${y.toFixed(1)}h${wide.toFixed(1)}v${part.toFixed(1)}h-${wide.toFixed(1)}z">${tip}</path>`;
    })
    .join("");
}

/** The carrier in words where it is another than the one named before. */
function drawWords(drawing: Drawing, scale: Scale, runs: readonly CarrierRun[], y: number): void {
  let named: Carrier | undefined;
  for (const { carrier, fromMs, toMs } of runs) {
    const from = scale.x(fromMs);
    if (carrier === named || scale.x(toMs) - from <= 7 * words[carrier].length + 12) continue;
    drawing.text(Math.round(from + 6), y, "inside", words[carrier]);
    named = carrier;
  }
}

function drawRank(drawing: Drawing, scale: Scale, band: RankTraffic, cycle: CycleReport, peak: number): void {
  const { rank, vm } = band;
  const label = `rank ${rank} on ${vm}`;
  const top = drawing.y;
  const spans = trafficSpans(band.samples).filter(isSeen(scale));
  const runs = carrierRuns(spans);
  drawing.text(16, top + height / 2 + 4, "label", label);
  for (const run of runs) {
    const from = scale.x(run.fromMs);
    const wide = scale.x(run.toMs) - from;
    const tip = `${label}, ${when(run)}: ${words[run.carrier]} (${amounts(run)})`;
    drawing.add(
      `<rect x="${from}" y="${top}" width="${wide.toFixed(2)}" height="${height}" class="b-${run.carrier} ground">` +
        `<title>${escapeText(tip)}</title></rect>`,
    );
  }
  for (const span of spans) drawing.add(bars(scale, span, top + height, peak, label));
  drawWords(drawing, scale, runs, top + 11);
  if (spans.length === 0) drawing.text(left + 8, top + height / 2 + 4, "value", "no samples");
  const span = cycle.ranks.find((r) => r.rank === rank);
  if (span !== undefined)
    for (const own of rankBands(cycle, span, scale.fromMs, scale.toMs)) {
      if (!ownStates.some((state) => state === own.band)) continue;
      const from = scale.x(own.fromMs);
      const wide = Math.max(scale.x(own.toMs) - from, 1);
      const tip = `${label}: ${own.band} for ${formatMs(own.toMs - own.fromMs)}, by its own clock`;
      drawing.add(
        `<rect x="${from}" y="${top + height + 1}" width="${wide.toFixed(2)}" height="3" class="s-${own.band}">` +
          `<title>${escapeText(tip)}</title></rect>`,
      );
    }
  drawing.y += height + gap;
}

/** The rows of all ranks, the same scale for each. */
export function drawTraffic(
  drawing: Drawing,
  scale: Scale,
  bands: readonly RankTraffic[],
  cycle: CycleReport,
): void {
  const peak = peakRate(bands, scale.fromMs, scale.toMs);
  const full = peak > 0 ? ` (full height: ${formatBytes(peak)}/s)` : "";
  drawing.heading(`Payload each rank moved, by route${full}`, legend);
  for (const band of [...bands].sort((a, b) => a.rank - b.rank)) drawRank(drawing, scale, band, cycle, peak);
}
