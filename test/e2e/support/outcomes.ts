/** What must be so after a cycle, whatever its outcome. */
import { expect } from "vitest";
import type { CycleReport } from "../../../src/index.js";
import { type CliResult, words } from "./cli.js";
import type { Job, RankSample } from "./job.js";
import type { E2eLab } from "./lab-fixture.js";
import { say } from "./progress.js";

/** The VM runs on that host only, with its card. */
export async function expectOn(lab: E2eLab, vm: string, host: string): Promise<void> {
  const status = await lab.status();
  expect(status.running).toBeNull();
  expect(status.interrupted).toBeNull();
  const found = status.vms.find((v) => v.vm === vm);
  expect(found).toMatchObject({ host, status: "running", cards: ["hca0"], trouble: "" });
  expect(found?.devices.map((d) => d.port)).toEqual(["ACTIVE"]);
  expect(await lab.qemuHosts(vm)).toEqual([host]);
}

export function reportOf(result: CliResult): CycleReport {
  try {
    return JSON.parse(result.stdout) as CycleReport;
  } catch (cause) {
    throw new Error(`no report on stdout: ${words(result)}`, { cause });
  }
}

export type Strategy = "live" | "park";

/** Migrates a VM to the free host under the job and checks everything that must hold afterwards. */
export async function migrateUnderJob(
  lab: E2eLab,
  job: Job,
  vm: string,
  strategy: Strategy,
): Promise<CycleReport> {
  const to = await lab.freeHost();
  const before = await job.expectOpenib();
  const result = await lab.cli(["migrate", vm, "--to", to, "--strategy", strategy, "--json"]);
  expect(result.code, `${words(result)}\n${job.output()}`).toBe(0);
  const report = reportOf(result);
  expect(report).toMatchObject({ schemaVersion: 1, outcome: "done", strategy, vm, to });
  if (strategy === "live")
    expect(report.ranks.some((r) => r.after.tcp.sentBytes > r.before.tcp.sentBytes)).toBe(true);
  const movers = report.ranks.filter((r) => r.moved).map((r) => r.vm);
  const whole = strategy === "park" || job.program === "onesided";
  expect(new Set(movers)).toEqual(new Set(whole ? lab.vms : [vm]));
  const after = await job.expectOpenib(before, 1, new Set(movers));
  await expectOn(lab, vm, to);
  await job.expectGoesOn(after);
  say(
    `${job.program}: ${strategy}: ${vm} to ${to} in ${(report.totalMs / 1000).toFixed(1)} s (command ${(result.ms / 1000).toFixed(1)} s)`,
  );
  return report;
}

/** A cycle that failed: exit 5, the VM where it was with its card, the job goes on over openib. */
export async function expectRolledBack(
  lab: E2eLab,
  result: CliResult,
  was: { vm: string; host: string; job: Job; before: readonly RankSample[]; cause: RegExp; code?: number },
): Promise<CycleReport> {
  const { vm, host, job, cause, code = 5 } = was;
  expect(result.code, `${words(result)}\n${job.output()}`).toBe(code);
  const report = reportOf(result);
  expect(report.outcome).toBe("rolled-back");
  expect(report.message).toMatch(cause);
  const after = await job.expectOpenib();
  await expectOn(lab, vm, host);
  await job.expectGoesOn(after);
  say(`rolled back after ${(report.totalMs / 1000).toFixed(1)} s: ${report.message}`);
  return report;
}
