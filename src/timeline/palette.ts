/**
 * Colours of the page and the drawing, for light and dark. They keep apart for colour-blind eyes (Okabe and Ito);
 * each has a word beside it. The drawing has plain values, not variables: it is also a file of its own, and not every
 * viewer of SVG knows variables.
 */

const colours = {
  paper: ["#fff", "#14181d"],
  ink: ["#1b1f24", "#e6eaee"],
  soft: ["#59636e", "#9aa6b2"],
  line: ["#d8dee4", "#323a43"],
  shade: ["#f3f6f9", "#1c2229"],
  idle: ["#9aa4af", "#6d7782"],
  rank: ["#b4609a", "#cc79a7"],
  card: ["#00896a", "#1fb08b"],
  copy: ["#3478bf", "#56a0e0"],
  stop: ["#d55e00", "#f0752a"],
  undo: ["#a40e26", "#ff6b6b"],
  openib: ["#0072b2", "#3d9bd6"],
  tcp: ["#d98a00", "#e69f00"],
  held: ["#cfd6dd", "#454f5a"],
  good: ["#1a7f37", "#4cc26a"],
  bad: ["#b3261e", "#ff7b72"],
} as const satisfies Record<string, readonly [light: string, dark: string]>;
type Colour = keyof typeof colours;

const dark = "@media (prefers-color-scheme:dark)";

/** The colours as variables, for the page around the drawing. */
export function pageColours(): string {
  const names = Object.keys(colours) as Colour[];
  const of = (shade: 0 | 1) => names.map((name) => `--${name}:${colours[name][shade]}`).join(";");
  return `:root{color-scheme:light dark;${of(0)}}${dark}{:root{${of(1)}}}`;
}

const paints: readonly (readonly [selectors: string, property: "fill" | "stroke", colour: Colour])[] = [
  [".paper", "fill", "paper"],
  ["text", "fill", "ink"],
  [".label,.tick", "fill", "soft"],
  [".inside", "stroke", "paper"],
  [".grid", "stroke", "line"],
  [".axis", "stroke", "soft"],
  [".cycle", "fill", "shade"],
  [".rate", "fill", "soft"],
  [".step", "stroke", "ink"],
  [".pause", "stroke", "stop"],
  [".p-idle", "fill", "idle"],
  [".p-rank,.s-drain,.s-re-init", "fill", "rank"],
  [".p-card", "fill", "card"],
  [".p-copy", "fill", "copy"],
  [".p-stop,.still", "fill", "stop"],
  [".p-undo", "fill", "undo"],
  [".b-openib,.p-save", "fill", "openib"],
  [".b-tcp,.p-link", "fill", "tcp"],
  [".b-none,.s-held,.p-job", "fill", "held"],
];

/** The drawing's own style, for an element of class "timeline". */
export function drawingStyle(): string {
  const of = (shade: 0 | 1) =>
    paints
      .map(([selectors, property, colour]) => {
        const scoped = selectors.split(",").map((s) => `.timeline ${s}`);
        return `${scoped.join(",")}{${property}:${colours[colour][shade]}}`;
      })
      .join("");
  return (
    `.timeline text{font:12px system-ui,"Segoe UI","DejaVu Sans",sans-serif}` +
    `.timeline .heading{font-weight:600;font-size:13px}.timeline .value,.timeline .tick{font-variant-numeric:tabular-nums}` +
    `.timeline .middle{text-anchor:middle}.timeline .end{text-anchor:end}` +
    `.timeline .inside{font-size:11px;paint-order:stroke;stroke-width:3px;stroke-linejoin:round}` +
    `.timeline .grid,.timeline .step{stroke-width:1}.timeline .pause{stroke-width:1.5;fill:none}` +
    `.timeline .rate{fill-opacity:.3}.timeline .still{fill-opacity:.22}.timeline .ground{fill-opacity:.25}` +
    `${of(0)}${dark}{${of(1)}}`
  );
}
