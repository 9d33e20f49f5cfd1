/** The job's own life: a tick for each progress report, its speed, and the longest time without an iteration. */
import { Drawing, left, right } from "./drawing.js";
import { escapeText } from "./escape.js";
import type { IterationSample } from "./input.js";
import { longestGap, rateSpans } from "./job-rate.js";
import { formatCount, formatMs, type Scale } from "./scale.js";

const chart = 44;
const tick = 16;

function drawRate(drawing: Drawing, scale: Scale, samples: readonly IterationSample[]): void {
  const spans = rateSpans(samples).filter((s) => s.toMs > scale.fromMs && s.fromMs < scale.toMs);
  const most = Math.max(...spans.map((s) => s.perSecond), 0);
  const top = drawing.y;
  const base = top + chart;
  if (most > 0) {
    const height = (perSecond: number) => (base - (perSecond / most) * chart).toFixed(1);
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
  drawing.add(`<line x1="${left}" x2="${right}" y1="${base}" y2="${base}" class="axis"/>`);
  drawing.y = base + 4;
}

function drawTicks(drawing: Drawing, scale: Scale, samples: readonly IterationSample[]): void {
  const y = drawing.y;
  drawing.text(16, y + 12, "label", "iterations");
  for (const { atMs, iteration } of samples) {
    if (atMs < scale.fromMs || atMs > scale.toMs) continue;
    const tip = `iteration ${formatCount(iteration)} done at ${formatMs(Math.round(atMs))}`;
    drawing.add(
      `<path class="step" d="M${scale.x(atMs)} ${y}v${tick}"><title>${escapeText(tip)}</title></path>`,
    );
  }
  drawing.y = y + tick;
}

function drawLongestGap(drawing: Drawing, scale: Scale, samples: readonly IterationSample[]): void {
  const gap = longestGap(samples, scale.fromMs, scale.toMs);
  if (gap === null) return;
  const from = scale.x(gap.fromMs);
  const to = scale.x(gap.toMs);
  const y = drawing.y + 8;
  drawing.add(`<path d="M${from} ${y - 4}v8M${from} ${y}H${to}M${to} ${y - 4}v8" class="pause"/>`);
  const words = `longest gap: ${formatMs(gap.toMs - gap.fromMs)} without an iteration`;
  const room = right - to > 280;
  drawing.text(room ? to + 8 : from - 8, y + 4, room ? "value" : "value end", words);
  drawing.y += 18;
}

export function drawJob(drawing: Drawing, scale: Scale, samples: readonly IterationSample[]): void {
  drawing.heading("Job: iterations per second, and a tick for each report of one");
  drawRate(drawing, scale, samples);
  drawTicks(drawing, scale, samples);
  drawLongestGap(drawing, scale, samples);
}
