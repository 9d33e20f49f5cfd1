/** Parts of the drawing that all its rows share: where they are, words, a legend. */
import { escapeText } from "./escape.js";

export const width = 1120;
export const left = 150;
export const right = 1040;
export const row = 22;
export const bar = 14;
/** Of the 12 pixel letters, enough for a wide one; only a legend's places depend on it. */
const letter = 6.6;

export interface LegendItem {
  /** Class of the sample of colour. */
  kind: string;
  words: string;
}

export class Drawing {
  readonly parts: string[] = [];
  y = 34;

  add(part: string): void {
    this.parts.push(part);
  }

  text(x: number, y: number, kind: string, content: string): void {
    this.add(`<text x="${x}" y="${y}" class="${kind}">${escapeText(content)}</text>`);
  }

  /** A line of words, with the colours of what comes below it at its right end. */
  heading(content: string, legend: readonly LegendItem[] = []): void {
    this.y += 10;
    this.text(0, this.y + 11, "heading", content);
    let x = right;
    for (const { kind, words } of [...legend].reverse()) {
      x -= words.length * letter + 32;
      this.add(`<rect x="${x.toFixed(1)}" y="${this.y + 1}" width="14" height="11" rx="2" class="${kind}"/>`);
      this.text(Math.round(x + 19), this.y + 11, "label", words);
    }
    this.y += row;
  }
}
