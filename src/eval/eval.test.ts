import { describe, expect, it } from "vitest";
import type { JobResult } from "../demo/job-log.js";
import { Fault } from "../testbed/fault.js";
import { disturbanceOf } from "./lab-world.js";
import { evalCommand, type EvalFlags } from "./options.js";
import { courseOf, type EvalPlan, sizeArguments, type Workload } from "./plan.js";
import { aloneMs, allRight, type EvalResult, evalResult, parseResults } from "./result.js";
import { complaint, runEval } from "./run.js";
import { evalLines } from "./tables.js";
import type { EvalWorld, JobEnd } from "./world.js";

const verdict = (workload: Workload, iterations: number, checksum: string): JobResult => ({
  ...{ workload, ok: true, ranks: 2, iterations, checksum, seconds: 1, meanMs: 1 },
  ...{ longestGapMs: 40, longestGapAt: 1 },
});

const park = [
  { phase: "drain", ms: 20 },
  { phase: "detach", ms: 280 },
  { phase: "pre-copy", ms: 1500 },
  { phase: "downtime", ms: 200 },
  { phase: "attach", ms: 100 },
  { phase: "link-up", ms: 900 },
];

interface Course {
  /** By "workload mode": what the job ends with instead of the right thing. */
  ends?: Record<string, Partial<JobEnd> | Error>;
  /** What a migration throws. */
  refuses?: Error;
  useless?: string;
  checkpointing?: boolean;
  /** The job is over before the migration is. */
  tooShort?: boolean;
}

/** A world whose jobs do 100 iterations in 10 s and have a checksum of what they were told to do. */
function world(course: Course) {
  const calls: string[] = [];
  let mode = "none";
  let workloadNow = "";
  let extraMs = 0;
  const operation = (name: string, ms: number) => {
    calls.push(name);
    extraMs += ms;
  };
  const made: EvalWorld = {
    accelerator: "tcg",
    ranks: 2,
    start: (workload, args) => {
      calls.push(`start ${workload} ${args.join(" ")}`);
      workloadNow = workload;
      mode = "none";
      extraMs = 0;
      return Promise.resolve({
        reach: (iteration) => Promise.resolve(void calls.push(`reach ${iteration}`)),
        get hasEnded() {
          return course.tooShort === true && mode !== "none";
        },
        end: () => {
          const end = course.ends?.[`${workloadNow} ${mode}`];
          if (end instanceof Error) return Promise.reject(end);
          return Promise.resolve({
            ...{ exitCode: 0, result: verdict(workload, 100, "abc"), totalMs: 10_000 + extraMs, words: "" },
            ...end,
          });
        },
      });
    },
    migrate: (strategy) => {
      mode = strategy;
      operation(strategy, strategy === "park" ? 3000 : 500);
      if (course.refuses !== undefined) return Promise.reject(course.refuses);
      return Promise.resolve({ phases: park, heldMs: strategy === "live" ? 700 : 0 });
    },
    ...(course.checkpointing === true
      ? {
          checkpointing: {
            checkpoint: () => {
              mode = "checkpoint";
              operation("checkpoint", 400);
              return Promise.resolve({ phases: [{ phase: "save", ms: 400 }], heldMs: 0 });
            },
            restart: () => {
              operation("restart", 5000);
              return Promise.resolve({ phases: [{ phase: "restore", ms: 3000 }], heldMs: 0 });
            },
          },
        }
      : {}),
    clearUp: () => {
      calls.push("clear up");
      return Promise.resolve(course.useless ?? "");
    },
  };
  return { made, calls };
}

const plan: EvalPlan = {
  workloads: ["is"],
  modes: ["none", "park", "live", "checkpoint"],
  size: "small",
  seconds: 20,
};

async function evaluate(course: Course, asked: EvalPlan = plan, abort = new AbortController()) {
  const { made, calls } = world(course);
  const told: EvalResult[] = [];
  const results = await runEval(made, {
    plan: asked,
    tell: (result) => void told.push(result),
    say: () => undefined,
    signal: abort.signal,
  });
  expect(told).toEqual(results);
  for (const result of results) expect(evalResult.parse(JSON.parse(JSON.stringify(result)))).toEqual(result);
  return { results, calls, outcomes: results.map(({ mode, outcome }) => `${mode} ${outcome}`) };
}

describe("plan", () => {
  it("does the undisturbed run first, asked for or not", () => {
    expect(courseOf({ ...plan, modes: ["live", "park"] })).toEqual(["none", "park", "live"]);
  });

  it("gives each workload a size", () => {
    expect(sizeArguments("memtest", "large")).toEqual(["--megabytes", "256"]);
    expect(sizeArguments("is", "small")).toEqual(["--size", "65536"]);
  });
});

describe("options", () => {
  const parse = async (...argv: string[]) => {
    let found: EvalFlags | undefined;
    const command = evalCommand((flags) => {
      found = flags;
      return Promise.resolve();
    });
    command.configureOutput({ writeErr: () => undefined });
    await command.parseAsync(argv, { from: "user" });
    return found;
  };

  it("has defaults for everything", async () => {
    expect(await parse()).toMatchObject({
      ...{ workloads: ["memtest", "cg", "ft", "lu", "is"], modes: ["none", "park", "live", "checkpoint"] },
      ...{ size: "small", seconds: 60, out: "eval-output", name: "eval" },
    });
  });

  it("takes lists in any order, and nothing that is not in them", async () => {
    expect(await parse("--workloads", "is, cg,is", "--modes", "live,none", "--size", "large")).toMatchObject({
      ...{ workloads: ["cg", "is"], modes: ["none", "live"], size: "large" },
    });
    await expect(parse("--workloads", "cg,ep")).rejects.toThrow(/"ep" is none of memtest, cg/);
    await expect(parse("--modes", "")).rejects.toThrow(/none of none, park/);
    await expect(parse("--size", "C")).rejects.toThrow(/small, medium, large/);
    await expect(parse("--seconds", "0")).rejects.toThrow(/from 5/);
  });
});

describe("complaint", () => {
  const base = { iterations: 100, checksum: "abc", totalMs: 1 };
  const end = (result: JobResult | null, exitCode = 0): JobEnd => ({
    exitCode,
    result,
    totalMs: 1,
    words: "said",
  });

  it("has nothing against the right answer", () => {
    expect(complaint("is", 2, end(verdict("is", 100, "abc")), base)).toBe("");
    expect(complaint("is", 2, end(verdict("is", 7, "other")), undefined)).toBe("");
  });

  it("names what is not right", () => {
    expect(complaint("is", 2, end(verdict("is", 100, "abc"), 3), base)).toBe("the job ended with 3: said");
    expect(complaint("is", 2, end(null), base)).toMatch(/no result/);
    expect(complaint("is", 3, end(verdict("is", 100, "abc")), base)).toMatch(/verdict/);
    expect(complaint("cg", 2, end(verdict("is", 100, "abc")), base)).toMatch(/verdict/);
    expect(complaint("is", 2, end({ ...verdict("is", 100, "abc"), ok: false }), base)).toMatch(/verdict/);
    expect(complaint("is", 2, end(verdict("is", 99, "abc")), base)).toMatch(/99 iterations, not 100/);
    expect(complaint("is", 2, end(verdict("is", 100, "abd")), base)).toMatch(/abd, undisturbed it was abc/);
  });
});

describe("runEval", () => {
  it("measures every mode against the undisturbed run, over the same iterations", async () => {
    const { results, calls, outcomes } = await evaluate({ checkpointing: true });
    expect(outcomes).toEqual(["none right", "park right", "live right", "checkpoint right"]);
    expect(calls).toEqual([
      "start is --size 65536 --seconds 20",
      ...["start is --size 65536 --iterations 100", "reach 33", "park"],
      ...["start is --size 65536 --iterations 100", "reach 33", "live"],
      ...["start is --size 65536 --iterations 100", "reach 33", "checkpoint", "reach 66", "restart"],
    ]);
    const [none, parked, live, checkpoint] = results;
    expect(none).toMatchObject({
      totalMs: 10_000,
      overheadMs: null,
      phases: [],
      right: true,
      iterations: 100,
    });
    expect(parked).toMatchObject({ totalMs: 13_000, overheadMs: 3000, overheadPercent: 30, heldMs: 0 });
    expect(parked?.phases).toEqual(park);
    expect(live).toMatchObject({ overheadMs: 500, heldMs: 700, longestGapMs: 40 });
    // The guest's clock was set back: its word on gaps is not taken.
    expect(checkpoint).toMatchObject({ overheadMs: 5400, longestGapMs: null });
    expect(checkpoint?.phases.map(({ phase }) => phase)).toEqual(["save", "restore"]);
    expect(parked === undefined ? 0 : aloneMs(parked)).toBe(10_000);
    expect(allRight(results)).toBe(true);
  });

  it("says that checkpoints are left out where there are none, which is no wrong answer", async () => {
    const { results, outcomes } = await evaluate({});
    expect(outcomes.at(-1)).toBe("checkpoint left-out");
    expect(results.at(-1)).toMatchObject({ right: null, totalMs: null });
    expect(results.at(-1)?.message).toMatch(/no checkpoint and restart/);
    expect(allRight(results)).toBe(true);
    expect(evalLines(results).join("\n")).toMatch(/is, checkpoint: left-out: this build/);
  });

  it("does as many iterations as asked for", async () => {
    const { calls } = await evaluate({}, { ...plan, modes: ["none"], iterations: 100 });
    expect(calls).toEqual(["start is --size 65536 --iterations 100"]);
  });

  it("takes no other answer for right", async () => {
    const { results, outcomes } = await evaluate({
      ends: {
        "is park": { result: verdict("is", 100, "abd") },
        "is live": { exitCode: 3, words: "WRONG is" },
      },
    });
    expect(outcomes.slice(0, 3)).toEqual(["none right", "park wrong", "live wrong"]);
    expect(results[2]?.message).toContain("WRONG is");
    expect(allRight(results)).toBe(false);
  });

  it("a failure is a result, and the next run is tried", async () => {
    const { outcomes, calls } = await evaluate({
      ends: { "is park": new Fault("lost", "still"), "is live": new Fault("wrong", "WRONG") },
    });
    expect(outcomes.slice(0, 3)).toEqual(["none right", "park failed", "live wrong"]);
    expect(calls.filter((call) => call === "clear up")).toHaveLength(2);
  });

  it.each([
    [3, "none wrong"],
    [137, "none failed"],
  ])(
    "without a right undisturbed run (exit %i) nothing else of the workload is done",
    async (exitCode, none) => {
      const { outcomes } = await evaluate(
        { ends: { "is none": { exitCode } } },
        { ...plan, workloads: ["cg", "is"], modes: ["none", "park"] },
      );
      expect(outcomes).toEqual(["none right", "park right", none, "park failed"]);
    },
  );

  it("a lab that is of no use any more fails what is left", async () => {
    const { results, calls } = await evaluate({ refuses: new Error("exit 6"), useless: "vm2 is paused" });
    expect(results.map(({ outcome }) => outcome)).toEqual(["right", "failed", "failed", "left-out"]);
    expect(results[2]?.message).toContain("vm2 is paused");
    expect(calls.filter((call) => call.startsWith("start"))).toHaveLength(2);
  });

  it("a job that was over before the migration shows nothing", async () => {
    const { results } = await evaluate({ tooShort: true });
    expect(results[1]).toMatchObject({ outcome: "failed" });
    expect(results[1]?.message).toMatch(/--seconds/);
  });

  it("rejects when it is stopped", async () => {
    const abort = new AbortController();
    abort.abort(new Error("Ctrl-C"));
    await expect(evaluate({}, plan, abort)).rejects.toThrow("Ctrl-C");
  });
});

describe("parseResults", () => {
  it("reads what --json printed, and says which line is not of that kind", async () => {
    const { results } = await evaluate({});
    const text = `${results.map((result) => JSON.stringify(result)).join("\n")}\n`;
    expect(parseResults(text, "a")).toEqual(results);
    expect(() => parseResults(`${text}{"a":1}\n`, "a.json")).toThrow(/^a\.json:5 is no result/);
    expect(() => parseResults("oops", "a.json")).toThrow(/^a\.json:1 is not JSON/);
  });
});

describe("disturbanceOf", () => {
  it("takes the phases of the moved VM in their order, and holds apart", () => {
    const spans = [
      { vm: "vm2", phase: "pre-copy" as const, startMs: 500, ms: 4000 },
      { vm: "vm1", phase: "drain" as const, startMs: 100, ms: 30 },
      { vm: "vm2", phase: "drain" as const, startMs: 100, ms: 40 },
      { vm: "vm2", phase: "held" as const, startMs: 3000, ms: 900 },
      { vm: "vm2", phase: "prepare" as const, startMs: 0, ms: 100 },
    ];
    const found = disturbanceOf({
      ...{ schemaVersion: 1, cycle: 1, verb: "migrate", strategy: "live", outcome: "done", message: "" },
      ...{ vm: "vm2", from: "h2", to: "h3", startedAt: "2026-11-25T01:00:00.000Z", totalMs: 6000 },
      ...{ phases: spans, ranks: [], holds: [], preCopy: null },
    });
    expect(found).toEqual({
      phases: [
        { phase: "prepare", ms: 100 },
        { phase: "drain", ms: 40 },
        { phase: "pre-copy", ms: 4000 },
      ],
      heldMs: 900,
    });
  });
});
