/** What must be so after a cycle, whatever its outcome. */
import assert from "node:assert/strict";
import type { CycleReport } from "../index.js";
import { type CliResult, words } from "./command.js";
import type { Job, RankSample } from "./job.js";
import type { Testbed } from "./testbed.js";

export type Strategy = CycleReport["strategy"];

/** The VM runs on that host only, and no cycle is open. */
export async function expectAt(bed: Testbed, vm: string, host: string) {
  const status = await bed.status();
  assert.equal(status.running, null, "no cycle runs");
  assert.equal(status.interrupted, null, "no cycle is open");
  const found = status.vms.find((v) => v.vm === vm);
  assert.deepEqual(
    { host: found?.host, status: found?.status, trouble: found?.trouble },
    { host, status: "running", trouble: "" },
  );
  assert.deepEqual(await bed.qemuHosts(vm), [host], `hosts with a QEMU of ${vm}`);
  return found;
}

/** The VM runs on that host only, with its card. */
export async function expectOn(bed: Testbed, vm: string, host: string): Promise<void> {
  const found = await expectAt(bed, vm, host);
  assert.deepEqual(found?.cards, ["hca0"]);
  assert.deepEqual(
    found?.devices.map((d) => d.port),
    ["ACTIVE"],
  );
}

export function reportOf(result: CliResult): CycleReport {
  try {
    return JSON.parse(result.stdout) as CycleReport;
  } catch (cause) {
    throw new Error(`no report on stdout: ${words(result)}`, { cause });
  }
}

/** Migrates a VM under the job, to the free host if none is given, and checks everything that must hold afterwards. */
export async function migrateUnderJob(
  bed: Testbed,
  job: Job,
  move: { vm: string; strategy: Strategy; to?: string; args?: readonly string[] },
): Promise<{ report: CycleReport; ranks: RankSample[] }> {
  const { vm, strategy, args = [] } = move;
  const to = move.to ?? (await bed.freeHost());
  const before = await job.expectOpenib();
  const result = await bed.cli(["migrate", vm, "--to", to, "--strategy", strategy, "--json", ...args]);
  assert.equal(result.code, 0, `${words(result)}\n${job.output()}`);
  const report = reportOf(result);
  assert.deepEqual(
    { outcome: report.outcome, vm: report.vm, to: report.to },
    { outcome: "done", vm, to },
    report.message,
  );
  assert.equal(report.strategy, strategy);
  if (report.strategy === "live")
    assert.ok(
      report.ranks.some((r) => r.after.tcp.sentBytes > r.before.tcp.sentBytes),
      "under live no rank sent anything over tcp",
    );
  const ranks = await job.expectOpenib({ since: before, epochs: 1, vm });
  await expectOn(bed, vm, to);
  await job.expectGoesOn(ranks);
  bed.say(
    `${job.program}: ${report.strategy}: ${vm} to ${to} in ${(report.totalMs / 1000).toFixed(1)} s (command ${(result.ms / 1000).toFixed(1)} s)`,
  );
  return { report, ranks };
}

/** A cycle that failed: exit 5, the VM where it was with its card, the job goes on over openib. */
export async function expectRolledBack(
  bed: Testbed,
  result: CliResult,
  was: { vm: string; host: string; job: Job; cause: RegExp; code?: number },
): Promise<CycleReport> {
  const { vm, host, job, cause, code = 5 } = was;
  assert.equal(result.code, code, `${words(result)}\n${job.output()}`);
  const report = reportOf(result);
  assert.equal(report.outcome, "rolled-back");
  assert.match(report.message, cause);
  const after = await job.expectOpenib();
  await expectOn(bed, vm, host);
  await job.expectGoesOn(after);
  bed.say(`rolled back after ${(report.totalMs / 1000).toFixed(1)} s: ${report.message}`);
  return report;
}
