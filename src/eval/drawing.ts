/** Stacked bars: how long each job took in each mode, and what of that was which phase. */
import { bar, Drawing, left, right, row, width } from "../timeline/drawing.js";
import { escapeText } from "../timeline/escape.js";
import { grid } from "../timeline/grid.js";
import { drawingStyle } from "../timeline/palette.js";
import { formatMs, linearScale, type Scale } from "../timeline/scale.js";
import { type Kind, kindOf, kinds, otherKind, timeIn } from "./kinds.js";
import { paperCaption, paperFigures } from "./paper.js";
import type { Mode } from "./plan.js";
import { aloneMs, type EvalResult } from "./result.js";

const alone: Kind = { kind: "p-job", words: "job alone", phases: [] };
/** Right of the bars there is room for what they come to. */
const barsEnd = right - 120;

const modeWords: Record<Mode, string> = {
  none: "undisturbed",
  park: "migration, park",
  live: "migration, live",
  checkpoint: "checkpoint, restart",
};

interface Segment {
  kind: Kind;
  ms: number;
}

/** Longest of all bars. */
export function longestBar(results: readonly EvalResult[]): number {
  const paper = paperFigures.map(({ phases }) => phases.reduce((sum, { ms }) => sum + ms, 0));
  return Math.max(...results.map(({ totalMs }) => totalMs ?? 0), ...paper);
}

function drawBar(
  drawing: Drawing,
  scale: Scale,
  label: string,
  segments: readonly Segment[],
  value: string,
): void {
  const { y } = drawing;
  drawing.text(16, y + 11, "label", label);
  let ms = 0;
  for (const segment of segments) {
    if (segment.ms <= 0) continue;
    const from = scale.x(ms);
    ms += segment.ms;
    const tip = `${label}: ${segment.kind.words} ${formatMs(segment.ms)}`;
    drawing.add(
      `<rect x="${from}" y="${y}" width="${(scale.x(ms) - from).toFixed(2)}" height="${bar}" class="${segment.kind.kind}">` +
        `<title>${escapeText(tip)}</title></rect>`,
    );
  }
  drawing.text(scale.x(ms) + 6, y + 11, "value", value);
  drawing.y += row;
}

function resultBar(drawing: Drawing, scale: Scale, result: EvalResult): void {
  const { mode, outcome, totalMs, overheadPercent, phases } = result;
  const segments: Segment[] =
    totalMs === null
      ? []
      : [
          { kind: alone, ms: aloneMs(result) },
          ...[...kinds, otherKind].map((kind) => ({ kind, ms: timeIn(kind, phases) })),
        ];
  const words = [
    ...(totalMs === null ? [] : [formatMs(totalMs)]),
    ...(overheadPercent === null
      ? []
      : [`${overheadPercent >= 0 ? "+" : ""}${overheadPercent.toFixed(1)} %`]),
    ...(outcome === "right" ? [] : [outcome === "left-out" ? "left out" : outcome.toUpperCase()]),
  ];
  drawBar(drawing, scale, modeWords[mode], segments, words.join(", "));
}

/** One SVG element with its own style. */
export function evalSvg(results: readonly EvalResult[]): string {
  const drawing = new Drawing();
  const longest = longestBar(results);
  const scale = linearScale(0, longest, left, barsEnd);
  const used = [...kinds, otherKind].filter((kind) => results.some(({ phases }) => timeIn(kind, phases) > 0));
  drawing.heading("Total time", [alone, ...used]);
  const marks: string[] = [];
  for (const workload of [...new Set(results.map((result) => result.workload))]) {
    drawing.heading(workload);
    const own = results.filter((result) => result.workload === workload);
    const from = drawing.y;
    for (const result of own) resultBar(drawing, scale, result);
    const base = own.find(({ mode }) => mode === "none")?.totalMs;
    if (base === null || base === undefined) continue;
    const x = scale.x(base);
    marks.push(`<line x1="${x}" x2="${x}" y1="${from - 3}" y2="${drawing.y - 3}" class="step"/>`);
  }
  drawing.heading(`${paperCaption} (IB: InfiniBand)`);
  for (const { move, phases } of paperFigures)
    drawBar(
      drawing,
      scale,
      move.replaceAll("InfiniBand", "IB"),
      phases.map(({ phase, ms }) => ({ kind: kindOf(phase), ms })),
      formatMs(phases.reduce((sum, { ms }) => sum + ms, 0)),
    );
  const [first] = results;
  if (first !== undefined) {
    drawing.y += 10;
    const { machine, accelerator, size } = first;
    const about = `Size ${size}; guests by ${accelerator === "tcg" ? "emulation (TCG)" : "KVM"} on ${machine.cpus} processors ${machine.cpuModel}; ${machine.date.slice(0, 10)}.`;
    drawing.text(
      0,
      drawing.y + 11,
      "label",
      `${about} A line marks the undisturbed run. In live the job runs on in all phases.`,
    );
    drawing.y += row;
  }
  const bottom = drawing.y + 6;
  return (
    `<svg class="timeline" viewBox="0 0 ${width} ${bottom + 4}" role="img" aria-labelledby="ev-title ev-desc" xmlns="http://www.w3.org/2000/svg">` +
    `<title id="ev-title">Total time of each job in each mode, by phases</title>` +
    `<desc id="ev-desc">Stacked bars over one axis in seconds. The table beside this drawing holds the same numbers.</desc>` +
    `<style>${drawingStyle()}</style>` +
    `<rect width="${width}" height="${bottom + 4}" class="paper"/>` +
    grid(scale, bottom) +
    drawing.parts.join("") +
    marks.join("") +
    "</svg>\n"
  );
}
