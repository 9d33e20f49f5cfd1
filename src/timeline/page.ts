/** The timeline as one self-contained HTML page: no script, nothing loaded from elsewhere, light and dark. */
import { escapeText } from "./escape.js";
import type { Figure, TimelineInput } from "./input.js";
import { pageColours } from "./palette.js";
import { formatBytes, formatMs } from "./scale.js";
import { timelineSvg } from "./svg.js";
import { timelineTables } from "./tables.js";

const outcomes = {
  done: "Done",
  "rolled-back": "Failed and rolled back",
  "needs-operator": "Failed, a person must act",
} as const;

const style = `${pageColours()}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.45 system-ui,"Segoe UI","DejaVu Sans",sans-serif}
main{max-width:1160px;margin:0 auto;padding:24px 20px 48px}
h1{font-size:24px;margin:0 0 4px}p{margin:0 0 16px;color:var(--soft)}
.outcome{font-weight:600}.good{color:var(--good)}.bad{color:var(--bad)}
dl.figures{display:grid;grid-template-columns:repeat(auto-fill,minmax(200px,1fr));gap:10px;margin:18px 0}
dl.figures div{background:var(--shade);border:1px solid var(--line);border-radius:6px;padding:8px 12px}
dl.figures dt{font-size:12.5px;color:var(--soft)}dl.figures dd{margin:0;font-size:17px;font-weight:600;overflow-wrap:anywhere;font-variant-numeric:tabular-nums}
.scroll{overflow-x:auto}.drawing{min-width:760px}svg{display:block;width:100%;height:auto}
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
${timelineTables(input)}
</main>
</body>
</html>
`;
}
