/** The time axis: lines through all rows, and round times above them. */
import { escapeText } from "./escape.js";
import { type Scale, ticks } from "./scale.js";

/** Axis labels in seconds with no needless digits. */
const formatTick = (ms: number): string => (ms === 0 ? "0" : `${Number((ms / 1000).toFixed(3))} s`);

export function grid(scale: Scale, bottom: number): string {
  return ticks(scale.fromMs, scale.toMs, 10)
    .map((ms) => {
      const x = scale.x(ms);
      const label = `<text class="tick middle" x="${x}" y="14">${escapeText(formatTick(ms))}</text>`;
      return `<line x1="${x}" x2="${x}" y1="20" y2="${bottom}" class="grid"/>${label}`;
    })
    .join("");
}
