/**
 * The self-verifying MPI programs on this host over BTL/tcp and vader: each gets the right answer,
 * the answer does not depend on the transport, and each checker finds a spoiled byte.
 */
import { cpus } from "node:os";
import { fileURLToPath } from "node:url";
import { execa } from "execa";
import { beforeAll, describe, expect, it } from "vitest";
import { parseJobLog } from "../../src/demo/job-log.js";

const source = fileURLToPath(new URL("../workloads", import.meta.url));
const build = fileURLToPath(new URL("../../build/workloads", import.meta.url));
const kernels = ["memtest", "cg", "ft", "lu", "is"] as const;
const names = [
  ...["ring", "sizes", "collectives", "onesided", "stencil", "late", "churn", "dirty"],
  ...kernels,
] as const;

/** mpirun's arguments for n ranks of a workload on this host. */
function mpirun(n: number, btl: string, mca: string[], program: string, args: string[]) {
  const own = ["--allow-run-as-root", "--oversubscribe", "--mca", "pml", "ob1", "--mca", "btl", btl];
  return execa("mpirun", [...own, ...mca, "-np", String(n), `${build}/${program}`, ...args], {
    reject: false,
    timeout: 60_000,
  });
}

/** For more ranks than processors. */
const yields = ["--mca", "mpi_yield_when_idle", "1"];

beforeAll(async () => {
  await execa("cmake", ["-S", source, "-B", build, "-Wno-dev"]);
  await execa("cmake", ["--build", build, "--parallel", String(cpus().length)]);
});

it("prints a line an iteration with --progress 0, and at most one in the time given else", async () => {
  const args = ["--iterations", "40", "--progress"];
  const all = await mpirun(2, "self,vader", [], "ring", [...args, "0"]);
  expect(parseJobLog(all.stdout).samples.map((s) => s.iteration)).toEqual(
    Array.from({ length: 40 }, (_, i) => i + 1),
  );
  // Only the line at the end.
  const few = await mpirun(2, "self,vader", [], "ring", [...args, "100"]);
  expect(parseJobLog(few.stdout).samples.map((s) => s.iteration)).toEqual([40]);
});

describe.each(names)("%s", (name) => {
  it("verifies its data and prints one line of JSON", async () => {
    const { stdout, stderr, exitCode } = await mpirun(3, "tcp,self,vader", [], name, [
      ...["--seconds", "1", "--compute", "0.2"],
    ]);
    expect(exitCode, stderr).toBe(0);
    const log = parseJobLog(stdout);
    expect(log.result).toMatchObject({ workload: name, ok: true, ranks: 3 });
    expect(stdout.split("\n").filter((line) => line.startsWith("{"))).toHaveLength(1);
    expect(log.samples.length).toBeGreaterThan(0);
  });

  it("finds a spoiled byte", async () => {
    const { stdout, stderr, exitCode } = await mpirun(2, "tcp,self,vader", [], name, [
      ...["--seconds", "30", "--compute", "0.1", "--corrupt-at", "3"],
    ]);
    expect(stderr).toMatch(new RegExp(`^WRONG ${name} rank 1 iteration \\d+ `, "m"));
    expect(exitCode).toBe(3);
    expect(parseJobLog(stdout).result).toBeNull();
  });

  it("has the same checksum over another transport", async () => {
    const args = ["--iterations", "20", "--compute", "0.1", "--hold", "0.01"];
    const runs = [
      await mpirun(2, "tcp,self", ["--mca", "osc", "pt2pt"], name, args),
      await mpirun(2, "self,vader", [], name, args),
    ];
    const results = runs.map((run) => parseJobLog(run.stdout).result);
    expect(results[0], runs[0]?.stderr).toMatchObject({ ok: true, iterations: 20 });
    expect(results[1]?.checksum, runs[1]?.stderr).toBe(results[0]?.checksum);
    const other = await mpirun(2, "self,vader", [], name, [...args, "--seed", "2"]);
    expect(parseJobLog(other.stdout).result?.checksum).not.toBe(results[0]?.checksum);
  });
});

it("late tells the longest gap of the ranks that do not compute", async () => {
  const { stdout, stderr, exitCode } = await mpirun(3, "self,vader", yields, "late", [
    ...["--seconds", "5", "--compute", "2"],
  ]);
  expect(exitCode, stderr).toBe(0);
  expect(parseJobLog(stdout).result?.longestGapMs).toBeLessThan(1000);
});

/** Sizes by program: the number of ranks divides none of them. */
const sizes = [
  ["memtest", "--megabytes", 3],
  ["cg", "--size", 2048],
  ["ft", "--size", 64],
  ["lu", "--size", 43],
  ["is", "--size", 32_768],
] as const;

it.each(sizes)("%s verifies another size on any number of ranks", async (name, option, size) => {
  for (const ranks of [1, 3, 5]) {
    const args = [option, String(size), "--iterations", "30"];
    const { stdout, stderr, exitCode } = await mpirun(ranks, "self,vader", yields, name, args);
    expect(exitCode, stderr).toBe(0);
    expect(parseJobLog(stdout).result).toMatchObject({ workload: name, ok: true, ranks, iterations: 30 });
  }
});

it.each(["cg", "ft", "lu", "is"])("%s rejects a size it cannot do", async (name) => {
  const { exitCode, stderr } = await mpirun(2, "self,vader", [], name, ["--size", "7"]);
  expect(exitCode).toBe(2);
  expect(stderr).toContain("--size must be");
});

it("rejects an unknown option", async () => {
  const { exitCode, stderr } = await mpirun(2, "self,vader", [], "ring", ["--bogus"]);
  expect(exitCode).toBe(2);
  expect(stderr).toContain("bad options");
});
