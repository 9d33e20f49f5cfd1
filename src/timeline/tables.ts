/** The numbers of the drawing as HTML tables, for reading, copying and screen readers. */
import { escapeText } from "./escape.js";
import type { TimelineInput } from "./input.js";
import { formatBytes, formatMs } from "./scale.js";
import { vmsOf } from "./svg.js";
import { type Carrier, carrierRuns, trafficSpans } from "./traffic-spans.js";

type Cell = string | { text: string; title: string };

function table(
  caption: string,
  head: readonly string[],
  rows: readonly (readonly Cell[])[],
  words: number,
): string {
  const cell = (content: Cell, column: number) => {
    const text = typeof content === "string" ? content : content.text;
    const title = typeof content === "string" ? "" : ` title="${escapeText(content.title)}"`;
    const kind = column < words ? "" : ' class="number"';
    return column === 0
      ? `<th scope="row"${title}>${escapeText(text)}</th>`
      : `<td${kind}${title}>${escapeText(text)}</td>`;
  };
  const columns = head.map(
    (h, i) => `<th scope="col"${i < words ? "" : ' class="number"'}>${escapeText(h)}</th>`,
  );
  const body = rows.map((cells) => `<tr>${cells.map(cell).join("")}</tr>`);
  return (
    `<div class="scroll"><table><caption>${escapeText(caption)}</caption>` +
    `<thead><tr>${columns.join("")}</tr></thead><tbody>${body.join("")}</tbody></table></div>`
  );
}

const exact = (bytes: number): Cell => ({ text: formatBytes(bytes), title: `${bytes} bytes` });

function phaseTable({ cycle }: TimelineInput): string {
  const rows = vmsOf(cycle.phases, cycle.vm).flatMap((vm) =>
    cycle.phases
      .filter((span) => span.vm === vm)
      .sort((a, b) => a.startMs - b.startMs)
      .map((span) => [vm, span.phase, formatMs(span.startMs), formatMs(span.ms)]),
  );
  return table("Phases per VM", ["VM", "Phase", "Start", "Duration"], rows, 2);
}

function rankTable({ cycle }: TimelineInput): string {
  const us = (n: number) => formatMs(n / 1000);
  const rows = [...cycle.ranks]
    .sort((a, b) => a.rank - b.rank)
    .map((rank) => [
      String(rank.rank),
      rank.vm,
      `${rank.before.route} → ${rank.after.route}`,
      `${rank.before.epoch} → ${rank.after.epoch}`,
      us(rank.timings.late),
      us(rank.timings.drain),
      us(rank.timings.teardown),
      us(rank.timings.held),
      us(rank.timings.load + rank.timings.connect),
    ]);
  const head = ["Rank", "VM", "Route", "Epoch", "Late", "Drain", "Tear-down", "Held", "Re-init"];
  return table("Ranks in the cycle (as measured by each rank)", head, rows, 4);
}

function routeTable({ routes }: TimelineInput): string {
  const rows = routes.map((r): Cell[] => [
    String(r.rank),
    r.vm,
    ...[r.before, r.during, r.after].flatMap((b) => [exact(b.openib), exact(b.tcp)]),
  ]);
  const head = [
    "Rank",
    "VM",
    ...["before", "during", "after"].flatMap((when) => [`openib ${when}`, `tcp ${when}`]),
  ];
  return table("Payload bytes per rank, sent and received", head, rows, 2);
}

const carriers: Readonly<Record<Carrier, string>> = { openib: "openib", tcp: "tcp", none: "nothing moved" };

function bandTable({ bands }: TimelineInput): string {
  const rows = [...bands]
    .sort((a, b) => a.rank - b.rank)
    .flatMap(({ rank, vm, samples }) =>
      carrierRuns(trafficSpans(samples)).map((run): Cell[] => [
        ...[String(rank), vm, carriers[run.carrier], formatMs(run.fromMs), formatMs(run.toMs)],
        ...[exact(run.openib), exact(run.tcp)],
      ]),
    );
  const head = ["Rank", "VM", "Carried by", "From", "To", "openib", "tcp"];
  return table("What carried each rank's traffic, by samples of its counters", head, rows, 3);
}

/** All tables that have something to say. */
export function timelineTables(input: TimelineInput): string {
  return [
    input.cycle.phases.length > 0 ? phaseTable(input) : "",
    input.cycle.ranks.length > 0 ? rankTable(input) : "",
    input.routes.length > 0 ? routeTable(input) : "",
    input.bands.length > 0 ? bandTable(input) : "",
  ].join("");
}
