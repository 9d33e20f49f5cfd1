/** The drawing: phases per VM, a band per rank, and the job's speed, all over one time axis. */
import type { CyclePhase, PhaseSpan } from "../controller/report.js";
import { escapeText } from "./escape.js";
import type { TimelineInput } from "./input.js";
import { longestPause, rateSpans } from "./job-rate.js";
import { type BandSpan, rankBands } from "./rank-bands.js";
import { formatCount, formatMs, linearScale, type Scale, ticks } from "./scale.js";

const width = 1120;
const left = 150;
const right = 1040;
const row = 22;
const bar = 14;
const chartHeight = 96;

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
  const margin = Math.min(Math.max(end * 0.12, 300), 5000);
  return { fromMs: -margin, toMs: end + margin };
}

class Drawing {
  readonly parts: string[] = [];
  y = 34;

  add(part: string): void {
    this.parts.push(part);
  }

  text(x: number, y: number, kind: string, content: string): void {
    this.add(`<text x="${x}" y="${y}" class="${kind}">${escapeText(content)}</text>`);
  }

  heading(content: string): void {
    this.y += 10;
    this.text(0, this.y + 11, "heading", content);
    this.y += row;
  }
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

function drawBands(drawing: Drawing, scale: Scale, label: string, bands: readonly BandSpan[]): void {
  drawing.text(16, drawing.y + 11, "label", label);
  for (const span of bands) {
    const from = scale.x(span.fromMs);
    const wide = Math.max(scale.x(span.toMs) - from, 0.5);
    const tip = `${label}: ${span.band} for ${formatMs(span.toMs - span.fromMs)}`;
    drawing.add(
      `<rect x="${from}" y="${drawing.y}" width="${wide.toFixed(2)}" height="${bar}" class="b-${span.band}">` +
        `<title>${escapeText(tip)}</title></rect>`,
    );
    if (wide > 8 * span.band.length)
      drawing.text(
        Math.round(from + wide / 2),
        drawing.y + 11,
        `inside${span.band === "held" ? " dark" : ""}`,
        span.band,
      );
  }
  drawing.y += row;
}

function drawRate(drawing: Drawing, scale: Scale, input: TimelineInput): void {
  const spans = rateSpans(input.samples).filter((s) => s.toMs > scale.fromMs && s.fromMs < scale.toMs);
  const top = drawing.y + 6;
  const base = top + chartHeight;
  const most = Math.max(...spans.map((s) => s.perSecond), 0);
  drawing.add(`<line x1="${left}" x2="${right}" y1="${base}" y2="${base}" class="axis"/>`);
  drawing.text(16, base, "label", "0");
  if (most > 0) {
    const height = (perSecond: number) => (base - (perSecond / most) * chartHeight).toFixed(1);
    const steps = spans.map(
      (s) => `L${scale.x(s.fromMs)} ${height(s.perSecond)}L${scale.x(s.toMs)} ${height(s.perSecond)}`,
    );
    const first = scale.x(spans[0]?.fromMs ?? 0);
    const last = scale.x(spans[spans.length - 1]?.toMs ?? 0);
    drawing.add(`<path d="M${first} ${base}${steps.join("")}L${last} ${base}Z" class="rate"/>`);
    drawing.text(16, top + 9, "label", `${formatCount(most)} / s`);
  } else {
    drawing.text(left + 8, base - 8, "value", "the job reported no progress in this time");
  }
  const pause = longestPause(input.samples);
  if (pause !== null && pause.toMs > scale.fromMs && pause.fromMs < scale.toMs) {
    const from = scale.x(pause.fromMs);
    const to = scale.x(pause.toMs);
    const y = base - 14;
    drawing.add(
      `<path d="M${from} ${y - 4}V${y + 4}M${from} ${y}H${to}M${to} ${y - 4}V${y + 4}" class="pause"/>`,
    );
    drawing.text(
      Math.round((from + to) / 2),
      y - 7,
      "value middle",
      `${formatMs(pause.toMs - pause.fromMs)} without an iteration`,
    );
  }
  drawing.y = base + 8;
}

/** One SVG element, to be put into a page that has the style of page.ts. */
export function timelineSvg(input: TimelineInput): string {
  const range = timeRange(input);
  const scale = linearScale(range.fromMs, range.toMs, left, right);
  const drawing = new Drawing();
  const { cycle } = input;

  for (const vm of vmsOf(cycle.phases, cycle.vm)) {
    drawing.heading(vm === cycle.vm ? `${vm}: ${cycle.from} → ${cycle.to}` : vm);
    const spans = cycle.phases.filter((span) => span.vm === vm).sort((a, b) => a.startMs - b.startMs);
    for (const span of spans) drawPhase(drawing, scale, span);
  }
  if (cycle.ranks.length > 0) {
    drawing.heading("Ranks, by route");
    for (const rank of [...cycle.ranks].sort((a, b) => a.rank - b.rank))
      drawBands(
        drawing,
        scale,
        `rank ${rank.rank} on ${rank.vm}`,
        rankBands(cycle, rank, range.fromMs, range.toMs),
      );
  }
  drawing.heading("Job, iterations per second");
  drawRate(drawing, scale, input);

  const bottom = drawing.y + 6;
  const grid = ticks(range.fromMs, range.toMs, 10).map((ms) => {
    const x = scale.x(ms);
    const label = `<text class="tick middle" x="${x}" y="14">${escapeText(ms === 0 ? "0" : formatTick(ms))}</text>`;
    return `<line x1="${x}" x2="${x}" y1="20" y2="${bottom}" class="grid"/>${label}`;
  });
  const start = scale.x(0);
  const end = scale.x(cycle.totalMs);
  const shade = `<rect x="${start}" y="20" width="${(end - start).toFixed(2)}" height="${bottom - 20}" class="cycle"/>`;
  return (
    `<svg viewBox="0 0 ${width} ${bottom + 4}" role="img" aria-labelledby="tl-title tl-desc" xmlns="http://www.w3.org/2000/svg">` +
    `<title id="tl-title">Timeline of cycle ${cycle.cycle}</title>` +
    `<desc id="tl-desc">Phases of each VM, route of each rank and speed of the job over the same time axis. The tables below hold the same numbers.</desc>` +
    shade +
    grid.join("") +
    drawing.parts.join("") +
    "</svg>"
  );
}

/** Axis labels in seconds with no needless digits. */
function formatTick(ms: number): string {
  return `${Number((ms / 1000).toFixed(3))} s`;
}
