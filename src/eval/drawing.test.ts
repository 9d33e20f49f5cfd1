import { describe, expect, it } from "vitest";
import { evalSvg, longestBar } from "./drawing.js";
import { kindOf, kinds, otherKind, timeIn } from "./kinds.js";
import { paperFigures } from "./paper.js";
import type { Mode, Workload } from "./plan.js";
import type { EvalResult } from "./result.js";
import { evalLines } from "./tables.js";
import type { PhaseTime } from "./world.js";

const phases: PhaseTime[] = [
  ...[
    { phase: "prepare", ms: 1000 },
    { phase: "drain", ms: 20 },
    { phase: "tear-down", ms: 80 },
  ],
  ...[
    { phase: "detach", ms: 300 },
    { phase: "pre-copy", ms: 5000 },
    { phase: "downtime", ms: 200 },
  ],
  ...[
    { phase: "attach", ms: 100 },
    { phase: "link-up", ms: 2000 },
    { phase: "re-init", ms: 300 },
  ],
];

function result(workload: Workload, mode: Mode, change: Partial<EvalResult> = {}): EvalResult {
  const isBase = mode === "none";
  return {
    ...{ schemaVersion: 1, workload, mode, size: "small", outcome: "right", right: true, message: "" },
    machine: {
      date: "2026-11-25T01:00:00.000Z",
      cpus: 2,
      cpuModel: "<EPYC>",
      kernel: "6.1",
      loadAtStart: 0.1,
    },
    ...{ accelerator: "tcg", iterations: 100, checksum: "ab", totalMs: isBase ? 40_000 : 49_000 },
    ...{ overheadMs: isBase ? null : 9000, overheadPercent: isBase ? null : 22.5 },
    ...{ phases: isBase ? [] : phases, heldMs: 0, longestGapMs: 30 },
    ...change,
  };
}

const results = [
  result("is", "none"),
  result("is", "park"),
  result("is", "live", { heldMs: 1500 }),
  result("is", "checkpoint", {
    ...{ outcome: "left-out", right: null, message: "no such verb", phases: [] },
    ...{ totalMs: null, overheadMs: null, overheadPercent: null, longestGapMs: null },
  }),
  result("cg", "none"),
  result("cg", "park", { outcome: "wrong", right: false, message: "the checksum is <x>" }),
];

/** Widths of the parts of the bars, by class. */
const widths = (svg: string, kind: string): number[] =>
  [...svg.matchAll(new RegExp(`width="([0-9.]+)" height="14" class="${kind}"`, "g"))].map((m) =>
    Number(m[1]),
  );

describe("kinds", () => {
  it("has every phase once, and what it does not know among the others", () => {
    expect(kindOf("attach").words).toBe("hot-plug");
    expect(kindOf("restore")).toBe(otherKind);
    const all = [...kinds, otherKind].reduce((sum, kind) => sum + timeIn(kind, phases), 0);
    expect(all).toBe(phases.reduce((sum, { ms }) => sum + ms, 0));
  });
});

describe("evalSvg", () => {
  const svg = evalSvg(results);

  it("is one element of its own that loads nothing and lets no text out", () => {
    expect(svg).toMatch(/^<svg class="timeline" viewBox="0 0 1120 \d+"/);
    expect(svg.match(/<svg/g)).toHaveLength(1);
    expect(svg).toContain("&lt;EPYC&gt;");
    expect(svg).not.toMatch(/<EPYC>|href|url\(|<script|NaN|Infinity/);
  });

  it("draws the parts of a bar to scale", () => {
    const [scale = 0] = widths(svg, "p-job").map((w) => w / 40_000);
    expect(widths(svg, "p-job")).toHaveLength(5);
    expect(widths(svg, "p-copy")).toHaveLength(3);
    for (const part of widths(svg, "p-copy")) expect(part / scale).toBeCloseTo(5000, -2);
    for (const part of widths(svg, "p-job")) expect(part / scale).toBeCloseTo(40_000, -2);
  });

  it("draws the paper's figures over the same axis and says what they are not", () => {
    expect(svg).toContain("not comparable in absolute terms");
    expect(svg).toContain(">IB to IB<");
    expect(longestBar([])).toBe(33_780);
    expect(longestBar(results)).toBe(49_000);
    // Ours that were moved, and two of the paper's.
    expect(widths(svg, "p-link")).toHaveLength(3 + paperFigures.filter((f) => timeOf(f.phases) > 0).length);
  });

  it("marks the undisturbed run of each workload, and names what is not right", () => {
    expect(svg.match(/class="step"/g)).toHaveLength(2);
    expect(svg).toContain(">left out<");
    expect(svg).toContain("WRONG");
    expect(svg).toContain("+22.5 %");
  });

  it("does without any result", () => {
    expect(evalSvg([])).toContain("not comparable");
  });
});

const timeOf = (list: readonly PhaseTime[]) => list.find(({ phase }) => phase === "link-up")?.ms ?? 0;

describe("evalLines", () => {
  const text = evalLines(results).join("\n");

  it("has a row for each run, and the paper's figures below", () => {
    expect(text).toMatch(/^Seconds; size small, tcg, 2 processors <EPYC>/);
    expect(text).toMatch(/^is +park +right +49\.00 +40\.00 +1\.00 +0\.40 +0\.40 +5\.00 +0\.20 +2\.00 /m);
    expect(text).toMatch(/^is +live .* 1\.50 +0\.03 +9\.00 +22\.5 %$/m);
    expect(text).toMatch(/^is +checkpoint +left-out +-/m);
    expect(text).toMatch(/^cg, park: wrong: the checksum is <x>$/m);
    expect(text).toMatch(/^InfiniBand to InfiniBand +3\.88 +29\.90$/m);
  });

  it("has a column for checkpoints only where there are any", () => {
    expect(text).not.toContain("checkpoint, restart");
    const saved = result("is", "checkpoint", { phases: [{ phase: "save", ms: 700 }] });
    expect(evalLines([saved]).join("\n")).toContain("checkpoint, restart");
    expect(evalLines([])[0]).toContain("nothing was run");
  });
});
