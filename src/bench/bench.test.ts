import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { Strategy } from "../controller/strategy.js";
import { runBlackout } from "./blackout.js";
import type { BenchLab, BenchWorld } from "./blackout-world.js";
import { type GapSample, iterationMs, longestGap } from "./gap.js";
import { collected, costOfMessage, countArguments } from "./instructions.js";
import { comparePairs, interleaved } from "./overhead.js";
import { noProxyProblem, openibCommand } from "./overhead-lab.js";
import { parseTimed, pingPongCommand, variantProblem } from "./pingpong.js";
import { blackoutReport, figureSchema, overheadReport } from "./results.js";
import { costPerMessage, figure, pairedRatios } from "./statistics.js";
import { blackoutLines, overheadLines } from "./tables.js";

const machine = { date: "2026-01-02T03:04:05.000Z", cpus: 2, cpuModel: "x", kernel: "6.1", loadAtStart: 0.1 };

describe("statistics", () => {
  it("gives median, least and most", () => {
    expect(figure([3, 1, 2])).toEqual({ runs: 3, median: 2, min: 1, max: 3 });
    expect(figure([4, 1])).toEqual({ runs: 2, median: 2.5, min: 1, max: 4 });
    expect(figure([1.23456], 2)).toEqual({ runs: 1, median: 1.23, min: 1.23, max: 1.23 });
    expect(() => figure([])).toThrow(/one measurement/);
  });

  it("orders its numbers whatever it is given", () => {
    fc.assert(
      fc.property(fc.array(fc.double({ min: -1e9, max: 1e9, noNaN: true }), { minLength: 1 }), (samples) => {
        expect(figureSchema.safeParse(figure(samples)).success).toBe(true);
      }),
    );
  });

  it("pairs ratios", () => {
    expect(pairedRatios([2, 9], [1, 3])).toEqual([2, 3]);
    expect(() => pairedRatios([1], [1, 2])).toThrow(/paired/);
  });

  it("takes what does not depend on the number of messages out of a cost", () => {
    const cost = (messages: number) => ({ messages, cost: 5000 + 20 * (70 + messages * 1800) });
    expect(costPerMessage(cost(160), cost(32), 20)).toBe(1800);
    expect(() => costPerMessage(cost(32), cost(32), 20)).toThrow(/more messages/);
  });
});

describe("ping-pong", () => {
  const final = (rank: number, sent: number, received: number) =>
    `[symvirt rank ${rank} 1.2] info: finalize: epoch 1, openib sent 0 received 0, tcp sent ${sent} received ${received}, 0 live registrations\n`;
  const inert = "[symvirt rank 0 1.2] info: inert: SYMVIRT_DISABLE is set\n";

  it("takes no run for what it is not", () => {
    const active = final(0, 100, 2) + final(1, 2, 100);
    expect(variantProblem("on", active, 100)).toBeUndefined();
    expect(variantProblem("on", active, 1000)).toBeDefined();
    expect(variantProblem("on", final(0, 100, 2), 100)).toBeDefined();
    expect(variantProblem("on", inert + inert, 100)).toBeDefined();
    expect(variantProblem("inert", inert + inert, 100)).toBeUndefined();
    expect(variantProblem("inert", active, 100)).toBeDefined();
    expect(variantProblem("off", "", 100)).toBeUndefined();
    expect(variantProblem("off", inert, 100)).toBeDefined();
  });

  it("preloads the library only where it should", () => {
    const of = (variant: "off" | "inert" | "on") =>
      pingPongCommand({ variant, socket: "/s", args: ["--a"], under: ["valgrind"] }).join(" ");
    expect(of("off")).not.toMatch(/LD_PRELOAD|SYMVIRT/);
    expect(of("inert")).toMatch(/LD_PRELOAD=.*SYMVIRT_DISABLE=1/);
    expect(of("on")).toMatch(/SYMVIRT_SOCKET=\/s .*SYMVIRT_PROXY=tcp.*-np 2 valgrind .*pingpong --a$/);
    expect(of("on")).not.toContain("SYMVIRT_DISABLE");
  });

  it("over openib is the same command but for the library, and has no other route", () => {
    const [off, on] = [openibCommand("off", { args: ["--a"] }), openibCommand("on", { args: ["--a"] })];
    expect(off.join(" ")).toMatch(
      /^symvirt mpirun -x SYMVIRT_PROXY=none .*--mca btl openib,self .*--host vm1:1,vm2:1 .*--a$/,
    );
    expect(on).toEqual(off.map((word) => word.replace("=none", "=")));
    const counted = openibCommand("on", {
      ...{ args: ["--a"], oneGuest: true, under: ["/v/valgrind", "--x"], environment: ["VALGRIND_LIB=/v"] },
    });
    expect(counted.join(" ")).toMatch(
      /-x VALGRIND_LIB=\/v .*--host vm1:2 .*-np 2 \/v\/valgrind --x \S*pingpong --a$/,
    );
    const none = "[symvirt rank 0 1.2] info: inert: SYMVIRT_PROXY is none\n";
    expect([noProxyProblem(none + none), noProxyProblem(none)]).toEqual([undefined, expect.any(String)]);
    const words =
      "[symvirt rank 0 1.2] info: finalize: epoch 1, openib sent 90 received 20, tcp sent 0 received 0, 0 live registrations\n";
    expect(variantProblem("on", words + words, 100, "openib")).toBeUndefined();
    expect(variantProblem("on", words + words, 100)).toBeDefined();
  });

  it("reads results and profiles, and nothing else", () => {
    const line = '{"mode":"time","sizes":[{"bytes":8,"latencyUs":5.5,"bytesPerSecond":1000000}]}';
    expect(parseTimed(`noise\n${line}\n`).sizes).toHaveLength(1);
    expect(() => parseTimed("noise\n")).toThrow(/no result/);
    expect(() => parseTimed('{"mode":"time","sizes":[{"bytes":8}]}')).toThrow(/no result/);
    expect(collected("events: Ir\nfn=x\n1 2\ntotals: 1234\n")).toBe(1234);
    expect(() => collected("totals: 0\n")).toThrow(/no total/);
    expect(() => collected("")).toThrow(/no total/);
  });

  it("counts a message as the difference of two runs, of both ranks", async () => {
    const bursts = { rounds: 10, few: 4, many: 12, settleMs: 200 };
    const run = (messages: number) =>
      Promise.resolve([`totals: ${10 * (50 + messages * 300)}`, `totals: ${10 * messages * 200}`]);
    expect(await costOfMessage(bursts, run)).toBe(500);
    expect(countArguments(bursts, 4).join(" ")).toBe(
      "--mode count --bytes 8 --messages 4 --rounds 10 --settle 200",
    );
  });

  it("lets another variant go first each time", async () => {
    const order: string[] = [];
    const run = (variant: string, number: number) => Promise.resolve(order.push(`${variant}${number}`));
    const results = await interleaved(2, ["off", "inert", "on"] as const, run);
    expect(order).toEqual(["off1", "inert1", "on1", "inert2", "on2", "off2"]);
    expect(results).toEqual({ off: [1, 6], inert: [2, 4], on: [3, 5] });
  });

  it("compares pairs by size, and makes a report of the published shape", () => {
    const run = (latencyUs: number) => ({
      mode: "time" as const,
      sizes: [8, 4096].map((bytes) => ({
        bytes,
        latencyUs: latencyUs * bytes,
        bytesPerSecond: 1e6 / latencyUs,
      })),
    });
    // The machine became twice as slow after the first pair: the ratios do not notice.
    const compared = comparePairs({ off: [run(1), run(2), run(2)], on: [run(1.5), run(3), run(3)] });
    expect(compared.latency[0]).toMatchObject({ bytes: 8, offUs: 16, onUs: 24, ratio: 1.5 });
    expect(compared.latency[0]?.spread.ratio).toEqual({ runs: 3, median: 1.5, min: 1.5, max: 1.5 });
    expect(compared.bandwidth[1]).toMatchObject({ bytes: 4096, ratio: 0.6667 });
    const three = comparePairs({ off: [run(1)], on: [run(1)], inert: [run(2)] });
    expect(three.latency[0]).toMatchObject({ ratio: 1, inertUs: 16, inertRatio: 2 });
    const one = figure([1]);
    const report = overheadReport.parse({
      ...{ schemaVersion: 1, bench: "overhead", machine, ...compared },
      instructionsPerMessage: {
        ...{ bytes: 8, off: 1, inert: 1, on: 1, onOverOff: 1 },
        spread: { off: one, inert: one, on: one, onOverOff: one },
      },
      openib: null,
    });
    expect(overheadLines(report).join("\n")).toMatch(/on \/ off +1 +1\.0000/);
    expect(overheadLines({ ...report, instructionsPerMessage: null })[0]).toMatch(/tcp: not counted/);
    const { latency: _, ...incomplete } = report;
    expect(overheadReport.safeParse(incomplete).success).toBe(false);
  });
});

describe("gap", () => {
  const sample = (arrivedMs: number, gapMs: number): GapSample => ({
    ...{ arrivedMs, gapMs, iteration: arrivedMs / 10, seconds: arrivedMs / 1000 },
  });

  it("is the longest that the cycle can have made", () => {
    const samples = [
      sample(100, 900),
      sample(1000, 5),
      sample(1500, 40),
      sample(2100, 70),
      sample(2600, 6),
      sample(3100, 800),
    ];
    expect(longestGap(samples, 900, 2000)).toBe(70);
    expect(longestGap(samples, 900, 2700)).toBeUndefined();
  });

  it("needs iterations to tell how long one takes", () => {
    expect(iterationMs([sample(0, 1), sample(1000, 1)])).toBe(10);
    expect(() => iterationMs([sample(0, 1)])).toThrow(/did not iterate/);
    expect(() => iterationMs([])).toThrow(/did not iterate/);
  });
});

describe("blackout", () => {
  /** A world whose clock is a number: a job that iterates every 10 ms and stands still as told. */
  class FakeWorld implements BenchWorld {
    now = 1000;
    open_ = 0;
    forced: Strategy | undefined;
    readonly events: string[] = [];
    readonly #gap: (strategy: Strategy, memoryMiB: number, delayS: number) => number;

    constructor(gap: (strategy: Strategy, memoryMiB: number, delayS: number) => number) {
      this.#gap = gap;
    }

    say(): void {}

    #samples: GapSample[] = [];
    #pending = 10;

    async wait(ms: number): Promise<void> {
      for (const end = this.now + ms; this.now < end;) {
        this.now += 500;
        const last = this.#samples.at(-1)?.iteration ?? 0;
        this.#samples.push({
          iteration: last + 50,
          seconds: this.now / 1000,
          gapMs: this.#pending,
          arrivedMs: this.now,
        });
        this.#pending = 10;
      }
    }

    async open(memoryMiB: number): Promise<BenchLab> {
      let delayS = 0;
      this.open_++;
      this.events.push(`open ${memoryMiB}`);
      return {
        accelerator: "tcg",
        startJob: async () => {
          const samples: GapSample[] = [];
          this.#samples = samples;
          return { samples, finish: async () => void this.events.push("finish") };
        },
        cycle: async (strategy) => {
          const startMs = this.now;
          this.#pending = this.#gap(strategy, memoryMiB, delayS) + 10;
          this.now += 5000;
          return { startMs, endMs: this.now, strategy: this.forced ?? strategy, downtimeMs: 150 };
        },
        delayLinkUp: async (seconds) => {
          delayS = seconds;
        },
        close: async () => {
          this.open_--;
          this.events.push("close");
        },
      };
    }
  }

  const plan = {
    ...{ runs: 3, quietMs: 2000, pollMs: 100, patienceMs: 5000 },
    memoryMiB: [1024, 3072] as [number, ...number[]],
    delayS: [0, 30] as [number, ...number[]],
  };

  it("measures every figure and makes a report of the published shape", async () => {
    const world = new FakeWorld((strategy, memory, delay) =>
      strategy === "live" ? 200 : memory + delay * 1000,
    );
    const report = blackoutReport.parse(JSON.parse(JSON.stringify(await runBlackout(world, plan))));
    expect(report.live).toEqual({
      gapMs: 200,
      spread: { gapMs: { runs: 3, median: 200, min: 200, max: 200 } },
    });
    expect(report.park.gapMs).toBe(1024);
    expect(report.bare.downtimeMs).toBe(150);
    expect(report.liveOverPark).toBe(0.1953);
    expect(report.byMemory.map((m) => [m.memoryMiB, m.live, m.park])).toEqual([
      [1024, 200, 1024],
      [3072, 200, 3072],
    ]);
    expect(report.byLinkUp.map((d) => [d.delayS, d.live, d.park])).toEqual([
      [0, 200, 1024],
      [30, 200, 31_024],
    ]);
    expect(world.events).toEqual(["open 1024", "finish", "finish", "close", "open 3072", "finish", "close"]);
    expect(blackoutLines(report).join("\n")).toMatch(/park, port up after 30 s +3 +31024\.0/);
  });

  it("takes no parked job for one that was moved live", async () => {
    const world = new FakeWorld(() => 1);
    world.forced = "park";
    await expect(runBlackout(world, plan)).rejects.toThrow(/nothing about live/);
    expect(world.open_).toBe(0);
  });

  it("takes the lab down when a cycle fails", async () => {
    const world = new FakeWorld(() => {
      throw new Error("no card");
    });
    await expect(runBlackout(world, plan)).rejects.toThrow("no card");
    expect(world.open_).toBe(0);
  });
});
