/** The drawing: the job's iterations, a band per rank and the phases per VM, all over one time axis. */
import type { CyclePhase, PhaseSpan } from "../controller/report.js";
import { bar, Drawing, left, type LegendItem, right, row, width } from "./drawing.js";
import { escapeText } from "./escape.js";
import { grid } from "./grid.js";
import type { TimelineInput } from "./input.js";
import { longestPause } from "./job-rate.js";
import { drawJob } from "./job-strip.js";
import { drawingStyle } from "./palette.js";
import { formatMs, linearScale, type Scale } from "./scale.js";
import { drawTraffic } from "./traffic-rows.js";

const legend: readonly LegendItem[] = [
  { kind: "p-idle", words: "preparing, waiting" },
  { kind: "p-rank", words: "ranks change over" },
  { kind: "p-card", words: "card out, in, link up" },
  { kind: "p-copy", words: "pre-copy" },
  { kind: "p-stop", words: "downtime" },
];

/** Colour class of a phase: who works in it. */
export function phaseKind(phase: CyclePhase): "rank" | "card" | "copy" | "stop" | "idle" | "undo" {
  switch (phase) {
    case "drain":
    case "tear-down":
    case "re-init":
      return "rank";
    case "detach":
    case "attach":
    case "link-up":
      return "card";
    case "pre-copy":
      return "copy";
    case "downtime":
      return "stop";
    case "prepare":
    case "wait":
    case "held":
      return "idle";
    case "roll-back":
      return "undo";
  }
}

/** VMs in the order of their first phase, the migrated one first. */
export function vmsOf(phases: readonly PhaseSpan[], first: string): string[] {
  const names = [...new Set(phases.map((span) => span.vm))];
  return names.includes(first) ? [first, ...names.filter((name) => name !== first)] : names;
}

/** Time range of the drawing: the cycle and the pause it made, with some of the job's life around them. */
export function timeRange(input: TimelineInput): { fromMs: number; toMs: number } {
  const cycle = Math.max(input.cycle.totalMs, ...input.cycle.phases.map((span) => span.startMs + span.ms), 1);
  const pause = longestPause(input.samples);
  // A pause of the job that has nothing to do with the cycle must not squeeze it.
  const end =
    pause !== null && pause.fromMs < cycle ? Math.min(Math.max(cycle, pause.toMs), 4 * cycle) : cycle;
  const margin = Math.min(Math.max(end * 0.2, 300), 5000);
  return { fromMs: -margin, toMs: end + margin };
}

function drawPhase(drawing: Drawing, scale: Scale, span: PhaseSpan): void {
  const from = scale.x(span.startMs);
  const to = scale.x(span.startMs + span.ms);
  /* A phase too short for the scale is still a visible mark. */
  const wide = Math.max(to - from, 2);
  const label = formatMs(span.ms);
  const y = drawing.y;
  const tip = `${span.vm} ${span.phase}: ${label}, from ${formatMs(span.startMs)}`;
  drawing.text(16, y + 11, "label", span.phase);
  drawing.add(
    `<rect x="${from}" y="${y}" width="${wide.toFixed(2)}" height="${bar}" rx="2" class="p-${phaseKind(span.phase)}">` +
      `<title>${escapeText(tip)}</title></rect>`,
  );
  const beside = from + wide + 6;
  if (beside + 60 < width) drawing.text(beside, y + 11, "value", label);
  else drawing.text(from - 6, y + 11, "value end", label);
  drawing.y += row;
}

/** The time in which the VM itself stood still, through all rows. */
function downtime({ cycle }: TimelineInput, scale: Scale, bottom: number): string {
  return cycle.phases
    .filter((span) => span.phase === "downtime")
    .map((span) => {
      const from = scale.x(span.startMs);
      const wide = Math.max(scale.x(span.startMs + span.ms) - from, 2);
      const tip = `downtime of ${span.vm}: ${formatMs(span.ms)}`;
      return `<rect x="${from}" y="20" width="${wide.toFixed(2)}" height="${bottom - 20}" class="still"><title>${escapeText(tip)}</title></rect>`;
    })
    .join("");
}

/** One SVG element with its own style: part of a page, or a file. */
export function timelineSvg(input: TimelineInput): string {
  const range = timeRange(input);
  const scale = linearScale(range.fromMs, range.toMs, left, right);
  const drawing = new Drawing();
  const { cycle } = input;

  drawJob(drawing, scale, input.samples);
  if (input.bands.length > 0) drawTraffic(drawing, scale, input.bands, cycle);
  vmsOf(cycle.phases, cycle.vm).forEach((vm, i) => {
    const title = vm === cycle.vm ? `${vm}: ${cycle.from} → ${cycle.to}` : vm;
    drawing.heading(title, i === 0 ? legend : []);
    const spans = cycle.phases.filter((span) => span.vm === vm).sort((a, b) => a.startMs - b.startMs);
    for (const span of spans) drawPhase(drawing, scale, span);
  });

  const bottom = drawing.y + 6;
  const start = scale.x(0);
  const end = scale.x(cycle.totalMs);
  const shade = `<rect x="${start}" y="20" width="${(end - start).toFixed(2)}" height="${bottom - 20}" class="cycle"/>`;
  return (
    `<svg class="timeline" viewBox="0 0 ${width} ${bottom + 4}" role="img" aria-labelledby="tl-title tl-desc" xmlns="http://www.w3.org/2000/svg">` +
    `<title id="tl-title">${escapeText(`Timeline of cycle ${cycle.cycle}: ${cycle.vm} from ${cycle.from} to ${cycle.to}, strategy ${cycle.strategy}`)}</title>` +
    `<desc id="tl-desc">The job's iterations, which route carried each rank's traffic, and the phases of each VM, over the same time axis in seconds since the cycle began. The page's tables hold the same numbers.</desc>` +
    `<style>${drawingStyle()}</style>` +
    `<rect width="${width}" height="${bottom + 4}" class="paper"/>` +
    shade +
    grid(scale, bottom) +
    drawing.parts.join("") +
    downtime(input, scale, bottom) +
    "</svg>"
  );
}
