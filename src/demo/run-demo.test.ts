import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { afterEach, describe, expect, it } from "vitest";
import type { CycleReport } from "../controller/report.js";
import { demoChecks } from "./checks.js";
import { outcomeLines, writeOutcome } from "./outcome.js";
import { demoReport } from "./report.js";
import { bandsOf, type RankSample, routeBytes } from "./route-bytes.js";
import { type DemoTiming, runDemo } from "./run-demo.js";
import type { MigrationListener, Stage } from "./stage.js";
import { textTable } from "./tables.js";

const timing: DemoTiming = {
  beforeMs: 30,
  afterMs: 60,
  patienceMs: 200,
  pollMs: 10,
  startMs: 500,
  endMs: 500,
};
const never = new AbortController().signal;
const park = { ranksPerVm: 2, strategy: "park" } as const;
const live = { ranksPerVm: 2, strategy: "live" } as const;
const quiet = { say: () => undefined, output: () => undefined };

interface Script {
  /** Ranks seen before all are up, to begin with. */
  slow?: boolean;
  spoiled?: boolean;
  exitCode?: number;
  endsAtOnce?: boolean;
  route?: RankSample["route"];
  sameEpoch?: boolean;
  /** No byte moves after the cycle. */
  stuck?: boolean;
  tellsNothing?: boolean;
  /** How the cycle goes; park if absent. */
  goes?: "live" | "park";
  /** live: the job stands still all the same. */
  frozen?: boolean;
  /** live: ranks of the moved VM (0 and 1) have nothing over tcp. */
  silent?: boolean;
  heldUs?: number;
  longestGapMs?: number;
}

const cycleMs = 80;

/** A stage where a job of four ranks iterates every 5 ms until told to stop. */
class ScriptedStage implements Stage {
  readonly accelerator = "tcg";
  readonly vms = ["vm1", "vm2"];
  readonly from = "h1";
  readonly spare = "h3";
  readonly network = "10.77.0.0/24";
  readonly moves: string[] = [];
  readonly commands: string[] = [];
  #looks = 0;
  #epoch = 1;
  #stop = false;
  #cycling = false;
  #tcp = 5;

  constructor(private readonly script: Script = {}) {}

  install = (path: string) => Promise.resolve(`/guest${path}`);
  workload = (name: string) => `/w/${name}`;
  close = () => Promise.resolve();

  async run(_vm: string, argv: readonly string[], onLine: (line: string) => void): Promise<number> {
    this.commands.push(argv.join(" "));
    if (argv[0] === "touch") {
      this.#stop = true;
      return 0;
    }
    if (this.script.endsAtOnce === true) return 1;
    const began = Date.now();
    let n = 0;
    while (!this.#stop && Date.now() - began < 3000) {
      await delay(5);
      // A held job has no iterations.
      if (this.#cycling && (this.script.goes !== "live" || this.script.frozen === true)) continue;
      n += 7;
      if (this.script.tellsNothing === true) {
        if (Date.now() - began > 250) break;
      } else onLine(`iter ${n} t ${(Date.now() - began) / 1000} gap 5.0 wall ${Date.now() / 1000}`);
    }
    if (this.script.tellsNothing !== true)
      onLine(
        JSON.stringify({
          ...{ workload: "stencil", ok: this.script.spoiled !== true, ranks: 4, iterations: n, seconds: 1 },
          ...{ meanMs: 1, longestGapMs: this.script.longestGapMs ?? 12, longestGapAt: 0.5, checksum: "ab12" },
        }),
      );
    return this.script.exitCode ?? 0;
  }

  ranks(): Promise<RankSample[]> {
    const looks = ++this.#looks;
    const moved = this.script.stuck === true && this.moves.length > 0 ? 1500 : looks * 1000;
    const up = this.script.slow === true && looks < 4 ? 1 : 4;
    return Promise.resolve(
      Array.from({ length: up }, (_, rank) => ({
        ...{ rank, vm: rank < 2 ? "vm1" : "vm2", state: "running" as const, epoch: this.#epoch },
        route: this.script.route ?? ("openib" as const),
        bytes: {
          openib: moved + rank,
          tcp: this.script.silent === true && rank < 2 ? 5 : this.#tcp,
        },
      })),
    );
  }

  async migrate(vm: string, to: string, { reading }: MigrationListener): Promise<CycleReport> {
    this.moves.push(`${vm} to ${to}`);
    const startedAt = new Date().toISOString();
    const isLive = this.script.goes === "live";
    this.#cycling = true;
    for (let i = 0; i < 4; i++) {
      await delay(cycleMs / 4);
      if (isLive) this.#tcp += 100;
      for (const { rank, vm: at, bytes } of await this.ranks())
        reading({ rank, vm: at, atMs: Date.now(), bytes });
    }
    this.#cycling = false;
    if (this.script.sameEpoch !== true) this.#epoch++;
    const none = { sentFragments: 0, receivedFragments: 0, sentBytes: 0, receivedBytes: 0 };
    const held = this.script.heldUs ?? (isLive ? 0 : 50_000);
    const span = (rank: number): CycleReport["ranks"][number] => ({
      ...{ rank, vm: rank < 2 ? "vm1" : "vm2", moved: true },
      timings: { late: 10, drain: 10, teardown: 10, held, load: 10, connect: 10 },
      before: { route: "openib", epoch: 1, openib: { ...none, sentBytes: 1000 + rank }, tcp: none },
      after: {
        ...{ route: "openib", epoch: 2, openib: { ...none, sentBytes: 1500 + rank } },
        tcp: { ...none, receivedBytes: isLive && !(this.script.silent === true && rank < 2) ? 400 : 0 },
      },
    });
    return {
      ...{ schemaVersion: 1, cycle: 3, verb: "migrate", outcome: "done", message: "moved" },
      strategy: this.script.goes ?? "park",
      ...{ vm, from: this.from, to, startedAt, totalMs: cycleMs, preCopy: null },
      holds: [],
      ranks: [0, 1, 2, 3].map(span),
      phases: [
        { vm: "vm2", phase: "tear-down", startMs: 2, ms: 3 },
        { vm: "vm1", phase: "tear-down", startMs: 2, ms: 4 },
        { vm: "vm1", phase: "pre-copy", startMs: 10, ms: 20 },
        { vm: "vm1", phase: "downtime", startMs: 30, ms: 2 },
        { vm: "vm2", phase: "re-init", startMs: 76, ms: 2 },
      ],
    };
  }
}

const failed = (result: { checks: { ok: boolean; what: string }[] }) =>
  result.checks.filter((c) => !c.ok).map((c) => c.what);

describe("runDemo", () => {
  it("moves the first VM to the spare host under the job, and holds", async () => {
    const stage = new ScriptedStage({ slow: true });
    const result = await runDemo(stage, park, quiet, never, timing);
    expect(stage.moves).toEqual(["vm1 to h3"]);
    expect(stage.commands[0]).toContain("--host vm1:2,vm2:2");
    expect(failed(result)).toEqual([]);
    expect(result.job?.iterations.before).toBeGreaterThan(0);
    expect(result.job?.iterations.after).toBeGreaterThan(0);
    expect(result.routes.map((r) => r.rank)).toEqual([0, 1, 2, 3]);
    expect(result.samples.some((s) => s.atMs < 0) && result.samples.some((s) => s.atMs > cycleMs)).toBe(true);
  });

  it("holds with strategy live when the job goes on over tcp meanwhile", async () => {
    const result = await runDemo(new ScriptedStage({ goes: "live" }), live, quiet, never, timing);
    expect(failed(result)).toEqual([]);
    expect(result.checks.map((c) => c.what)).toEqual(
      expect.arrayContaining([
        "the job went on over tcp during the cycle",
        "no rank was held",
        "the job iterated while the card was away",
        "the job's longest gap was below 25 % of the cycle",
      ]),
    );
    expect(result.job?.iterations.away).toBeGreaterThan(0);
    for (const { during } of result.routes) expect(during).toEqual({ openib: 500, tcp: 400 });
  });

  it("asks nothing of iterations in the cycle with strategy park", async () => {
    const result = await runDemo(new ScriptedStage(), park, quiet, never, timing);
    expect(failed(result)).toEqual([]);
    expect(result.job?.iterations.away).toBe(0);
    expect(result.checks.map((c) => c.what)).not.toContain("no rank was held");
  });

  it.each([
    [{ goes: "live", frozen: true }, ["the job iterated while the card was away"]],
    [{ goes: "live", silent: true }, ["the job went on over tcp during the cycle"]],
    [{ goes: "live", heldUs: 1 }, ["no rank was held"]],
    [{ goes: "live", longestGapMs: cycleMs / 4 }, ["the job's longest gap was below 25 % of the cycle"]],
    [
      { goes: "park", longestGapMs: 2 },
      ["the cycle was live, as asked", "the job iterated while the card was away"],
    ],
  ] satisfies [Script, string[]][])("does not hold as live with %j", async (script, what) => {
    const result = await runDemo(new ScriptedStage(script), live, quiet, never, timing);
    expect(failed(result)).toEqual(what);
  });

  it("keeps every reading of the counters, before, in and after the cycle", async () => {
    const { bands } = await runDemo(new ScriptedStage({ goes: "live" }), live, quiet, never, timing);
    expect(bands.map((b) => [b.rank, b.vm])).toEqual([
      ...[
        [0, "vm1"],
        [1, "vm1"],
        [2, "vm2"],
        [3, "vm2"],
      ],
    ]);
    for (const { samples } of bands) {
      const times = samples.map((s) => s.ms);
      expect(times).toEqual([...times].sort((a, b) => a - b));
      expect(times.filter((ms) => ms < 0).length).toBeGreaterThan(2);
      expect(times.filter((ms) => ms >= 0 && ms <= cycleMs + 20).length).toBeGreaterThanOrEqual(4);
      expect(samples.at(-1)?.tcp).toBe(405);
    }
  });

  it.each([
    [{ spoiled: true }, "the job verified its result"],
    [{ exitCode: 3 }, "the job ended with exit code 0"],
    [{ stuck: true }, "every rank moved bytes over openib after the cycle"],
    [{ sameEpoch: true }, "every rank came back in a new epoch"],
  ] satisfies [Script, string][])("does not hold with %j", async (script, what) => {
    const result = await runDemo(new ScriptedStage(script), park, quiet, never, timing);
    expect(failed(result)).toEqual([what]);
  });

  it("says which ranks are missing when they do not all come to openib", async () => {
    const run = runDemo(new ScriptedStage({ route: "tcp" }), park, quiet, never, timing);
    await expect(run).rejects.toMatchObject({
      exit: "deadline",
      message: "After 0.5 s 0 of 4 ranks run on openib",
      hint: expect.stringContaining("rank 3 on vm2: running, tcp") as string,
    });
  });

  it("tells when the job ends before the VM could be moved", async () => {
    const run = runDemo(new ScriptedStage({ endsAtOnce: true }), park, quiet, never, timing);
    await expect(run).rejects.toThrow("ended with exit code 1 before a VM could be moved");
  });

  it("runs a program of the user's: shows its output, asks nothing of its iterations", async () => {
    const stage = new ScriptedStage({ tellsNothing: true });
    const plan = { ...live, own: { path: "/home/me/a.out", args: ["--flag"] } };
    const result = await runDemo(stage, plan, quiet, never, timing);
    expect(stage.commands[0]).toMatch(/\/guest\/home\/me\/a\.out --flag$/);
    expect(result).toMatchObject({ job: null, jobName: "a.out", exitCode: 0 });
    expect(failed(result)).toEqual([]);
  });

  it("stops at once when interrupted", async () => {
    const abort = new AbortController();
    const run = runDemo(new ScriptedStage({ route: "tcp" }), park, quiet, abort.signal, timing);
    abort.abort(new Error("interrupted"));
    await expect(run).rejects.toThrow("interrupted");
  });
});

describe("outcome", () => {
  const folders: string[] = [];
  afterEach(async () => {
    for (const folder of folders.splice(0)) await rm(folder, { recursive: true });
  });

  it("writes a page and a report of the documented shape", async () => {
    const folder = await mkdtemp(join(tmpdir(), "symvirt-demo-"));
    folders.push(folder);
    const result = await runDemo(new ScriptedStage({ goes: "live" }), live, quiet, never, timing);
    const report = await writeOutcome(result, "tcg", folder);
    expect(demoReport.parse(report)).toEqual(report);
    expect(report).toMatchObject({ ok: true, accelerator: "tcg", timeline: join(folder, "timeline.html") });
    expect(await readFile(report.timeline, "utf8")).toContain("vm1 moved from h1 to h3 under stencil");
    const saved: unknown = JSON.parse(await readFile(join(folder, "timeline.json"), "utf8"));
    expect(saved).toMatchObject({ ...report, detail: { iterations: result.job?.iterations } });
    expect(report.bands.map((b) => b.samples.length)).toEqual(result.bands.map((b) => b.samples.length));
    expect(report.iterations).toHaveLength(result.samples.length);
    expect(report.job.awayIterations).toBe(result.job?.iterations.away);
    expect(await readFile(join(folder, "timeline.svg"), "utf8")).toMatch(/^<svg [^]*<\/svg>\n$/);
    const text = outcomeLines(result, report).join("\n");
    expect(text).toMatch(/vm1 +pre-copy +10 ms +20 ms/);
    expect(text).toContain("checksum ab12");
    expect(text).toContain("ok    all ranks run on openib after the cycle");
  });
});

describe("the check of epochs", () => {
  const sample = (rank: number, epoch: number): RankSample => ({
    ...{ rank, vm: `vm${1 + rank}`, state: "running", route: "openib", epoch },
    bytes: { openib: 1, tcp: 0 },
  });
  const idle = { sentFragments: 0, receivedFragments: 0, sentBytes: 0, receivedBytes: 0 };
  const side = { route: "openib", epoch: 1, openib: idle, tcp: idle } as const;
  const cycle: CycleReport = {
    ...{ schemaVersion: 1, cycle: 3, verb: "migrate", strategy: "live", outcome: "done", message: "moved" },
    ...{ vm: "vm1", from: "h1", to: "h3", startedAt: "", totalMs: 40, phases: [], holds: [], preCopy: null },
    ranks: [0, 1].map((rank) => ({
      ...{ rank, vm: `vm${1 + rank}`, moved: rank === 0, before: side, after: side },
      timings: { late: 0, drain: 0, teardown: 0, held: 0, load: 0, connect: 0 },
    })),
  };
  it.each([
    [2, 1, true],
    [1, 1, false],
    [2, 2, false],
  ])("live: the moved rank in epoch %i, the other in %i: %s", (moved, stayed, ok) => {
    const evidence = {
      ...{ cycle, asked: "live" as const, ranks: 2, before: [sample(0, 1), sample(1, 1)] },
      ...{ routes: [], exitCode: 0, own: null },
      after: [sample(0, moved), sample(1, stayed)],
    };
    const check = demoChecks(evidence).find((c) => c.what.includes("new epoch"));
    expect(check).toMatchObject({ ok, what: expect.stringContaining("the others kept theirs") as string });
  });
});

describe("routeBytes", () => {
  const sample = (rank: number, openib: number, tcp: number): RankSample => ({
    ...{ rank, vm: "vm1", state: "running", route: "openib", epoch: 1 },
    bytes: { openib, tcp },
  });

  it("gives differences between the moments, by rank", () => {
    const routes = routeBytes(
      [sample(1, 50, 0), sample(0, 100, 1)],
      [sample(0, 130, 1), sample(1, 50, 9)],
      [sample(1, 80, 9), sample(0, 230, 1)],
    );
    expect(routes).toEqual([
      {
        rank: 0,
        vm: "vm1",
        before: { openib: 100, tcp: 1 },
        during: { openib: 30, tcp: 0 },
        after: { openib: 100, tcp: 0 },
      },
      {
        rank: 1,
        vm: "vm1",
        before: { openib: 50, tcp: 0 },
        during: { openib: 0, tcp: 9 },
        after: { openib: 30, tcp: 0 },
      },
    ]);
  });

  it("has no negative bytes when a counter began anew or a rank is gone", () => {
    const [route] = routeBytes([sample(0, 100, 0)], [sample(0, 10, 0)], []);
    expect(route).toMatchObject({ during: { openib: 10, tcp: 0 }, after: { openib: 0, tcp: 0 } });
  });
});

describe("bandsOf", () => {
  it("sorts readings by rank and time, and counts from the cycle's begin", () => {
    const reading = (rank: number, atMs: number, openib: number) => ({
      ...{ rank, vm: `vm${rank}`, atMs, bytes: { openib, tcp: rank } },
    });
    expect(bandsOf([reading(2, 900, 1), reading(1, 1250.4, 9), reading(1, 1000, 3)], 1000)).toEqual([
      {
        rank: 1,
        vm: "vm1",
        samples: [
          { ms: 0, openib: 3, tcp: 1 },
          { ms: 250, openib: 9, tcp: 1 },
        ],
      },
      { rank: 2, vm: "vm2", samples: [{ ms: -100, openib: 1, tcp: 2 }] },
    ]);
    expect(bandsOf([], 0)).toEqual([]);
  });
});

describe("textTable", () => {
  it("pads words left and numbers right", () => {
    expect(
      textTable(
        ["VM", "time"],
        [
          ["vm10", "1 ms"],
          ["v", "12.25 s"],
        ],
        1,
      ),
    ).toEqual([...["VM       time", "----  -------", "vm10     1 ms", "v     12.25 s"]]);
  });
});
