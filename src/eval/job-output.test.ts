import { describe, expect, it } from "vitest";
import { JobOutput } from "./job-output.js";

const result = (iterations: number) =>
  `{"workload":"is","ok":true,"ranks":2,"iterations":${iterations},"seconds":2,"meanMs":5,"longestGapMs":9,"longestGapAt":1,"checksum":"ab"}`;

/** Feeds lines at the given times of the host. */
function read(lines: readonly (readonly [atMs: number, line: string])[]): JobOutput {
  let now = 0;
  const output = new JobOutput(() => now);
  for (const [at, line] of lines) {
    now = at;
    output.line(line);
  }
  return output;
}

describe("JobOutput", () => {
  it("follows a job to its end", () => {
    const output = read([
      [1900, "mpirun: a warning"],
      // Late: the file was only read from then on.
      [3000, "iter 10 t 0.500 gap 1.0 wall 1000.5"],
      [3010, "iter 20 t 1.000 gap 1.0 wall 1001.0"],
      [3500, "iter 30 t 1.500 gap 1.0 wall 1001.5"],
    ]);
    expect(output.iteration).toBe(30);
    expect(output.hasEnded).toBe(false);
    expect(output.end).toBeUndefined();
    const ended = read([
      [3500, "iter 30 t 1.500 gap 1.0 wall 1001.5"],
      [4010, "iter 40 t 2.010 gap 1.0 wall 1002.0"],
      [4011, result(40)],
      [4030, "exit 0"],
    ]);
    expect(ended.end).toMatchObject({ exitCode: 0, totalMs: 2010, result: { iterations: 40 } });
  });

  it("counts by the host's clock when the guest's was set back and the file is read anew", () => {
    const output = read([
      [2500, "iter 10 t 0.500 gap 1.0 wall 1000.5"],
      [3000, "iter 20 t 1.000 gap 1.0 wall 1001.0"],
      [3500, "iter 30 t 1.500 gap 1.0 wall 1001.5"],
      // Started anew from a checkpoint after iteration 20: what comes again comes late.
      [9000, "iter 10 t 0.500 gap 1.0 wall 1000.5"],
      [9001, "iter 20 t 1.000 gap 1.0 wall 1001.0"],
      [9002, "iter 30 t 1.500 gap 1.0 wall 1001.5"],
      [9502, "iter 40 t 2.000 gap 1.0 wall 1002.0"],
      [9503, result(40)],
      [9504, "exit 0"],
    ]);
    expect(output.end?.totalMs).toBe(7502);
  });

  it("keeps the last words and takes nothing else for an end", () => {
    const output = read([
      [1, "exit strategies"],
      [2, "exit 1234"],
      [3, "WRONG is rank 1 iteration 3 t 1.0: place 4"],
      [4, "exit 3"],
    ]);
    expect(output.end).toMatchObject({ exitCode: 3, result: null, totalMs: 0 });
    expect(output.end?.words).toContain("WRONG is rank 1");
    expect(read([[1, "exit strategies"]]).hasEnded).toBe(false);
  });
});
