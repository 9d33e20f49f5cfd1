/** The timeline as one self-contained HTML page: no script, nothing loaded from elsewhere, light and dark. */
import { escapeText } from "./escape.js";
import type { Figure, TimelineInput } from "./input.js";
import { formatBytes, formatMs } from "./scale.js";
import { timelineSvg } from "./svg.js";
import { timelineTables } from "./tables.js";

const outcomes = {
  done: "Done",
  "rolled-back": "Failed and rolled back",
  "needs-operator": "Failed, a person must act",
} as const;

const legend: readonly (readonly [string, string])[] = [
  ["p-idle", "preparing, waiting"],
  ["p-rank", "ranks drain, tear down, re-init"],
  ["p-card", "card out, card in, link up"],
  ["p-copy", "pre-copy"],
  ["p-stop", "downtime of the VM"],
  ["b-openib", "rank on openib"],
  ["b-tcp", "rank on tcp"],
  ["b-held", "rank held"],
];

/* Colours keep apart for colour-blind eyes (Okabe and Ito); each has a word beside it. */
const style = `
:root{color-scheme:light dark;--paper:#fff;--ink:#1b1f24;--soft:#59636e;--line:#d8dee4;--shade:#f3f6f9;
--idle:#9aa4af;--rank:#b4609a;--card:#00896a;--copy:#3478bf;--stop:#d55e00;--undo:#a40e26;--openib:#0072b2;--tcp:#d98a00;--held:#cfd6dd;--good:#1a7f37;--bad:#b3261e}
@media (prefers-color-scheme:dark){:root{--paper:#14181d;--ink:#e6eaee;--soft:#9aa6b2;--line:#323a43;--shade:#1c2229;
--idle:#6d7782;--rank:#cc79a7;--card:#1fb08b;--copy:#56a0e0;--stop:#f0752a;--undo:#ff6b6b;--openib:#3d9bd6;--tcp:#e69f00;--held:#454f5a;--good:#4cc26a;--bad:#ff7b72}}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.45 system-ui,"Segoe UI","DejaVu Sans",sans-serif}
main{max-width:1160px;margin:0 auto;padding:24px 20px 48px}
h1{font-size:24px;margin:0 0 4px}p{margin:0 0 16px;color:var(--soft)}
.outcome{font-weight:600}.good{color:var(--good)}.bad{color:var(--bad)}
dl.figures{display:grid;grid-template-columns:repeat(auto-fill,minmax(200px,1fr));gap:10px;margin:18px 0}
dl.figures div{background:var(--shade);border:1px solid var(--line);border-radius:6px;padding:8px 12px}
dl.figures dt{font-size:12.5px;color:var(--soft)}dl.figures dd{margin:0;font-size:17px;font-weight:600;overflow-wrap:anywhere;font-variant-numeric:tabular-nums}
.scroll{overflow-x:auto}.drawing{min-width:760px}svg{display:block;width:100%;height:auto}
svg text{font:12px system-ui,"Segoe UI","DejaVu Sans",sans-serif;fill:var(--ink)}
svg .heading{font-weight:600;font-size:13px}svg .label,svg .tick{fill:var(--soft)}svg .value{font-variant-numeric:tabular-nums}
svg .middle,svg .inside{text-anchor:middle}svg .end{text-anchor:end}svg .inside{fill:#fff;font-size:11px}svg .inside.dark{fill:var(--ink)}
svg .grid{stroke:var(--line);stroke-width:1}svg .axis{stroke:var(--soft)}svg .cycle{fill:var(--shade)}
svg .rate{fill:var(--openib);fill-opacity:.28;stroke:var(--openib);stroke-width:1.5}svg .pause{stroke:var(--stop);stroke-width:1.5;fill:none}
.p-idle{fill:var(--idle);background:var(--idle)}.p-rank{fill:var(--rank);background:var(--rank)}.p-card{fill:var(--card);background:var(--card)}
.p-copy{fill:var(--copy);background:var(--copy)}.p-stop{fill:var(--stop);background:var(--stop)}.p-undo{fill:var(--undo);background:var(--undo)}
.b-openib{fill:var(--openib);background:var(--openib)}.b-tcp{fill:var(--tcp);background:var(--tcp)}.b-held,.b-none{fill:var(--held);background:var(--held)}
.b-drain,.b-re-init{fill:var(--rank);background:var(--rank)}
ul.legend{display:flex;flex-wrap:wrap;gap:6px 18px;list-style:none;padding:0;margin:14px 0 22px;font-size:13px;color:var(--soft)}
ul.legend span{display:inline-block;width:14px;height:12px;border-radius:2px;margin-right:6px;vertical-align:-1px}
table{border-collapse:collapse;margin:18px 0;font-size:13.5px;font-variant-numeric:tabular-nums}
caption{text-align:left;font-weight:600;padding-bottom:6px}th,td{padding:4px 14px 4px 0;border-bottom:1px solid var(--line);text-align:left;font-weight:400;white-space:nowrap}
thead th{color:var(--soft);font-size:12.5px}.number{text-align:right}
@media print{:root{color-scheme:light}main{max-width:none}}
`;

function figures(input: TimelineInput): string {
  const { cycle } = input;
  const own: Figure[] = [{ label: "Whole cycle", value: formatMs(cycle.totalMs) }];
  if (cycle.preCopy !== null)
    own.push(
      { label: "Downtime of the VM", value: formatMs(cycle.preCopy.downtimeMs) },
      { label: "Memory sent", value: formatBytes(cycle.preCopy.transferredBytes) },
    );
  return [...own, ...input.figures]
    .map((f) => `<div><dt>${escapeText(f.label)}</dt><dd>${escapeText(f.value)}</dd></div>`)
    .join("");
}

/** The whole page. Every string in it that came from elsewhere is escaped. */
export function timelinePage(input: TimelineInput): string {
  const { cycle } = input;
  const title =
    cycle.verb === "migrate"
      ? `${cycle.vm} moved from ${cycle.from} to ${cycle.to} under ${input.job}`
      : `${cycle.verb} of ${cycle.vm} under ${input.job}`;
  const outcome = cycle.outcome === "done" ? "good" : "bad";
  const marks = legend.map(([kind, words]) => `<li><span class="${kind}"></span>${escapeText(words)}</li>`);
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>${escapeText(title)} - symvirt</title>
<style>${style}</style>
</head>
<body>
<main>
<h1>${escapeText(title)}</h1>
<p><span class="outcome ${outcome}">${outcomes[cycle.outcome]}</span>${cycle.message === "" ? "" : `: ${escapeText(cycle.message)}`}<br>
Cycle ${cycle.cycle}, strategy ${escapeText(cycle.strategy)}, begun ${escapeText(cycle.startedAt)}. Times count from the beginning of the cycle.</p>
<dl class="figures">${figures(input)}</dl>
<div class="scroll"><div class="drawing">${timelineSvg(input)}</div></div>
<ul class="legend" aria-label="Colours">${marks.join("")}</ul>
${timelineTables(input)}
</main>
</body>
</html>
`;
}
