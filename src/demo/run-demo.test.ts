import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { afterEach, describe, expect, it } from "vitest";
import type { CycleReport } from "../controller/report.js";
import { outcomeLines, writeOutcome } from "./outcome.js";
import { demoReport } from "./report.js";
import { type RankSample, routeBytes } from "./route-bytes.js";
import { type DemoTiming, runDemo } from "./run-demo.js";
import type { Stage } from "./stage.js";
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
}

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
      n += 7;
      if (this.script.tellsNothing === true) {
        if (Date.now() - began > 250) break;
      } else onLine(`iter ${n} t ${(Date.now() - began) / 1000} gap 5.0 wall ${Date.now() / 1000}`);
    }
    if (this.script.tellsNothing !== true)
      onLine(
        JSON.stringify({
          ...{ workload: "stencil", ok: this.script.spoiled !== true, ranks: 4, iterations: n, seconds: 1 },
          ...{ meanMs: 1, longestGapMs: 40, longestGapAt: 0.5, checksum: "ab12" },
        }),
      );
    return this.script.exitCode ?? 0;
  }

  ranks(): Promise<RankSample[]> {
    const looks = ++this.#looks;
    const moved = this.script.stuck === true && this.moves.length > 0 ? 5000 : looks * 1000;
    const up = this.script.slow === true && looks < 4 ? 1 : 4;
    return Promise.resolve(
      Array.from({ length: up }, (_, rank) => ({
        ...{ rank, vm: rank < 2 ? "vm1" : "vm2", state: "running" as const, epoch: this.#epoch },
        route: this.script.route ?? ("openib" as const),
        bytes: { openib: moved + rank, tcp: 5 },
      })),
    );
  }

  async migrate(vm: string, to: string): Promise<CycleReport> {
    this.moves.push(`${vm} to ${to}`);
    const startedAt = new Date().toISOString();
    await delay(40);
    if (this.script.sameEpoch !== true) this.#epoch++;
    return {
      ...{ schemaVersion: 1, cycle: 3, verb: "migrate", strategy: "park", outcome: "done", message: "moved" },
      ...{ vm, from: this.from, to, startedAt, totalMs: 40, ranks: [], holds: [], preCopy: null },
      phases: [
        { vm: "vm2", phase: "drain", startMs: 5, ms: 1 },
        { vm: "vm1", phase: "pre-copy", startMs: 10, ms: 20 },
      ],
    };
  }
}

const failed = (result: { checks: { ok: boolean; what: string }[] }) =>
  result.checks.filter((c) => !c.ok).map((c) => c.what);

describe("runDemo", () => {
  it("moves the first VM to the spare host under the job, and holds", async () => {
    const stage = new ScriptedStage({ slow: true });
    const result = await runDemo(stage, { ranksPerVm: 2 }, quiet, never, timing);
    expect(stage.moves).toEqual(["vm1 to h3"]);
    expect(stage.commands[0]).toContain("--host vm1:2,vm2:2");
    expect(failed(result)).toEqual([]);
    expect(result.job?.iterations.before).toBeGreaterThan(0);
    expect(result.job?.iterations.after).toBeGreaterThan(0);
    expect(result.routes.map((r) => r.rank)).toEqual([0, 1, 2, 3]);
    expect(result.samples.some((s) => s.atMs < 0) && result.samples.some((s) => s.atMs > 40)).toBe(true);
  });

  it.each([
    [{ spoiled: true }, "the job verified its result"],
    [{ exitCode: 3 }, "the job ended with exit code 0"],
    [{ stuck: true }, "every rank moved bytes over openib after the cycle"],
    [{ sameEpoch: true }, "every rank came back in a new epoch"],
  ] satisfies [Script, string][])("does not hold with %j", async (script, what) => {
    const result = await runDemo(new ScriptedStage(script), { ranksPerVm: 2 }, quiet, never, timing);
    expect(failed(result)).toEqual([what]);
  });

  it("says which ranks are missing when they do not all come to openib", async () => {
    const run = runDemo(new ScriptedStage({ route: "tcp" }), { ranksPerVm: 2 }, quiet, never, timing);
    await expect(run).rejects.toMatchObject({
      exit: "deadline",
      message: "After 0.5 s 0 of 4 ranks run on openib",
      hint: expect.stringContaining("rank 3 on vm2: running, tcp") as string,
    });
  });

  it("tells when the job ends before the VM could be moved", async () => {
    const run = runDemo(new ScriptedStage({ endsAtOnce: true }), { ranksPerVm: 2 }, quiet, never, timing);
    await expect(run).rejects.toThrow("ended with exit code 1 before a VM could be moved");
  });

  it("runs a program of the user's: shows its output, asks nothing of its iterations", async () => {
    const stage = new ScriptedStage({ tellsNothing: true });
    const plan = { ranksPerVm: 2, own: { path: "/home/me/a.out", args: ["--flag"] } };
    const result = await runDemo(stage, plan, quiet, never, timing);
    expect(stage.commands[0]).toMatch(/\/guest\/home\/me\/a\.out --flag$/);
    expect(result).toMatchObject({ job: null, jobName: "a.out", exitCode: 0 });
    expect(failed(result)).toEqual([]);
  });

  it("stops at once when interrupted", async () => {
    const abort = new AbortController();
    const run = runDemo(new ScriptedStage({ route: "tcp" }), { ranksPerVm: 2 }, quiet, abort.signal, timing);
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
    const result = await runDemo(new ScriptedStage(), { ranksPerVm: 2 }, quiet, never, timing);
    const report = await writeOutcome(result, "tcg", folder);
    expect(demoReport.parse(report)).toEqual(report);
    expect(report).toMatchObject({ ok: true, accelerator: "tcg", timeline: join(folder, "timeline.html") });
    expect(await readFile(report.timeline, "utf8")).toContain("vm1 moved from h1 to h3 under stencil");
    const saved: unknown = JSON.parse(await readFile(join(folder, "timeline.json"), "utf8"));
    expect(saved).toMatchObject({ ...report, detail: { iterations: result.job?.iterations } });
    const text = outcomeLines(result, report).join("\n");
    expect(text).toMatch(/vm1 +pre-copy +10 ms +20 ms/);
    expect(text).toContain("checksum ab12");
    expect(text).toContain("ok    all ranks run on openib after the cycle");
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
