import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { countIterations, onHostClock } from "./job-clock.js";
import { jobCommand } from "./job-command.js";
import { parseJobLog, parseProgress, parseResult } from "./job-log.js";
import { JobRecorder } from "./recorder.js";

const result = {
  ...{ workload: "stencil", ok: true, ranks: 4, iterations: 660, seconds: 1.013, meanMs: 1.5 },
  ...{ longestGapMs: 15.1, longestGapAt: 1.012, checksum: "8d69b8fbba83c403" },
};

describe("job log", () => {
  it("reads what a workload prints", () => {
    const text = `noise\niter 488 t 0.500 gap 2.7 wall 1795384643.096\n${JSON.stringify(result)}\n`;
    expect(parseJobLog(text)).toEqual({
      samples: [{ iteration: 488, seconds: 0.5, gapMs: 2.7, wallMs: 1795384643096 }],
      result,
    });
  });

  it("takes no other line for progress or a result", () => {
    for (const line of [
      "",
      "iter",
      "iter -1 t 0 gap 0 wall 0",
      "iter 1 t 1 gap 1 wall x",
      "iter 1 t 1 gap 1 wall 1 2",
    ])
      expect(parseProgress(line)).toBeNull();
    for (const line of ["{", "{}", "null", '{"ok":true}', JSON.stringify({ ...result, checksum: "<b>" })])
      expect(parseResult(line)).toBeNull();
    expect(parseResult(JSON.stringify({ ...result, pad: "x".repeat(5000) }))).toBeNull();
  });

  it("survives anything a guest may print", () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        const recorder = new JobRecorder(() => 0);
        for (const line of text.split("\n")) recorder.line(line);
        parseJobLog(`{${text}`);
      }),
    );
  });
});

describe("job clock", () => {
  const line = (iteration: number, wallMs: number, arrivedMs: number) => ({
    ...{ iteration, seconds: 0, gapMs: 0, wallMs, arrivedMs },
  });

  it("shifts by the smallest delay, and anew after the guest stood still", () => {
    // The guest is 1000 ms behind the host; its clock stood still for 200 ms at 5900.
    const lines = [line(1, 1000, 2030), line(2, 1500, 2510), line(3, 4900, 6110), line(4, 5400, 6700)];
    expect(onHostClock(lines, 5900).map((l) => l.atMs)).toEqual([2010, 2510, 6110, 6610]);
  });

  it("knows a line that was printed before the guest stood still and arrived after it", () => {
    // Guest and host agree until the guest stands still from 5000 to 5400.
    const lines = [line(1, 4000, 4010), line(2, 4950, 5450), line(3, 5100, 5510)];
    expect(onHostClock(lines, 5000).map((l) => l.atMs)).toEqual([4010, 4960, 5510]);
    expect(onHostClock([], 5000)).toEqual([]);
  });

  it("counts iterations before, during and after", () => {
    const lines = [line(10, 0, 1000), line(20, 1000, 2000), line(25, 2000, 3000), line(40, 3000, 4000)];
    const timed = onHostClock(lines, 3500);
    const cycle = { startMs: 2000, endMs: 3500 };
    const counts = { before: 20, during: 5, after: 25 };
    expect(countIterations(timed, cycle, { startMs: 2500, endMs: 3000 }, 50)).toEqual({ ...counts, away: 5 });
    expect(countIterations(timed, cycle, { startMs: 3001, endMs: 3400 }, 50)).toEqual({ ...counts, away: 0 });
    expect(countIterations(timed, cycle, null, 50)).toEqual({ ...counts, away: 0 });
    const none = { before: 0, during: 0, after: 0, away: 0 };
    expect(countIterations([], { startMs: 0, endMs: 1 }, null, 0)).toEqual(none);
  });
});

describe("jobCommand", () => {
  it("names the hosts, their slots and the management network", () => {
    const placement = { vms: ["vm1", "vm2"], ranksPerVm: 2, network: "10.77.0.0/24" };
    expect(jobCommand(placement, "/p", ["--x", "a b"])).toEqual([
      ...["symvirt", "mpirun", "--allow-run-as-root", "--host", "vm1:2,vm2:2"],
      ...["--mca", "oob_tcp_if_include", "10.77.0.0/24", "--mca", "btl_tcp_if_include", "10.77.0.0/24"],
      ...["--mca", "osc_rdma_buffer_size", "16777216", "--mca", "mpi_yield_when_idle", "1"],
      ...["-np", "4", "/p", "--x", "a b"],
    ]);
  });
});
