/** The results as plain text. */
import { textTable } from "../demo/tables.js";
import { kinds, otherKind, timeIn } from "./kinds.js";
import { paperCaption, paperFigures } from "./paper.js";
import { aloneMs, type EvalResult } from "./result.js";

const seconds = (ms: number): string => (ms / 1000).toFixed(2);
const none = "-";

function row(result: EvalResult, columns: typeof kinds): string[] {
  const { workload, mode, totalMs, overheadMs, overheadPercent, phases, longestGapMs, heldMs } = result;
  const times =
    totalMs === null
      ? [none, none, ...columns.map(() => none)]
      : [
          seconds(totalMs),
          seconds(aloneMs(result)),
          ...columns.map((kind) => (mode === "none" ? none : seconds(timeIn(kind, phases)))),
        ];
  return [
    ...[workload, mode, result.outcome, ...times, heldMs > 0 ? seconds(heldMs) : none],
    longestGapMs === null ? none : seconds(longestGapMs),
    overheadMs === null ? none : seconds(overheadMs),
    overheadPercent === null ? none : `${overheadPercent.toFixed(1)} %`,
  ];
}

/** Everything that was measured, what was left out or went wrong, and the paper's figures below. */
export function evalLines(results: readonly EvalResult[]): string[] {
  const columns = results.some(({ phases }) => timeIn(otherKind, phases) > 0) ? [...kinds, otherKind] : kinds;
  const [first] = results;
  const about =
    first === undefined
      ? "nothing was run"
      : `size ${first.size}, ${first.accelerator}, ${first.machine.cpus} processors ${first.machine.cpuModel}, load ${first.machine.loadAtStart} at the start`;
  const head = [
    ...["workload", "mode", "answer", "total", "job alone", ...columns.map((kind) => kind.words)],
    ...["held", "longest gap", "overhead", "of undisturbed"],
  ];
  const notes = results
    .filter(({ message }) => message !== "")
    .map(({ workload, mode, outcome, message }) => `${workload}, ${mode}: ${outcome}: ${message}`);
  return [
    `Seconds; ${about}`,
    ...textTable(
      head,
      results.map((result) => row(result, columns)),
      3,
    ),
    ...(notes.length > 0 ? ["", ...notes] : []),
    "",
    paperCaption,
    ...textTable(
      ["from card to card", "hot-plug", "link-up"],
      paperFigures.map(({ move, phases }) => [move, ...phases.map(({ ms }) => seconds(ms))]),
      1,
    ),
  ];
}
