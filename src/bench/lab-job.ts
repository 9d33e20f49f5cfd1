/** A self-checking job in a lab under a bench, seen through its progress lines. */
import { setTimeout as delay } from "node:timers/promises";
import { jobCommand } from "../demo/job-command.js";
import { JobRecorder } from "../demo/recorder.js";
import { SymvirtError } from "../errors.js";
import type { Controller } from "../index.js";
import { labExec, MANAGEMENT_SUBNET, type OpenLab } from "../lab/index.js";
import type { BenchJob } from "./blackout-world.js";
import type { GapSample } from "./gap.js";

const START_MS = 180_000;
const END_MS = 120_000;
let started = 0;

/** Runs a shell line in a guest; it must succeed. */
export async function inGuest(lab: OpenLab, vm: string, script: string, signal: AbortSignal): Promise<void> {
  const { code, stderr } = await labExec(lab, vm, ["sh", "-c", script], { signal });
  if (code !== 0)
    throw new SymvirtError("internal", `A command of the bench failed in ${vm} (${code}): ${stderr.trim()}`);
}

export interface LabJobRequest {
  lab: OpenLab;
  controller: Controller;
  /** One rank each; rank 0 is in the first, which must not move: its clock measures. */
  vms: readonly [string, ...string[]];
  /** A workload of test/workloads, and its arguments. */
  program: string;
  args?: readonly string[];
  signal: AbortSignal;
}

/** Starts the job; resolves when every rank runs over openib and it iterates. */
export async function startLabJob(request: LabJobRequest): Promise<BenchJob> {
  const { lab, controller, vms, program, args = [], signal } = request;
  const [first] = vms;
  const stopFile = `/tmp/symvirt-bench-stop-${++started}`;
  const command = jobCommand(
    { vms, ranksPerVm: 1, network: MANAGEMENT_SUBNET },
    `/opt/symvirt/build/workloads/${program}`,
    ["--seconds", "7200", "--stop-file", stopFile, ...args],
  );
  const recorder = new JobRecorder();
  const samples: GapSample[] = [];
  const words: string[] = [];
  let code: number | null | undefined;
  const ended = labExec(lab, first, command, {
    signal,
    onLine: (line) => {
      const progress = recorder.line(line);
      if (progress !== null) samples.push(progress);
      else if (words.length < 200) words.push(line);
    },
  }).then((result) => {
    code = result.code;
    return result;
  });
  // Whoever waits for it next gets the error.
  ended.catch(() => undefined);
  const fail = (what: string) =>
    new SymvirtError("internal", `The job ${what}: ${words.slice(-20).join(" | ")}`);
  const deadline = performance.now() + START_MS;
  for (;;) {
    if (code !== undefined) throw fail(`ended with ${code} before it was measured`);
    const ranks = (await controller.ranks(signal)).filter((r) => r.report.state !== "left");
    const ready = ranks.filter((r) => r.report.state === "running" && r.report.route === "openib").length;
    if (ready === vms.length && samples.length > 2) break;
    if (performance.now() > deadline)
      throw fail(`does not run over openib (${ready} of ${vms.length} ranks do)`);
    await delay(500, undefined, { signal });
  }
  return {
    samples,
    finish: async () => {
      await inGuest(lab, first, `touch ${stopFile}`, signal);
      const late = delay(END_MS, undefined, { signal, ref: false }).then(() => {
        throw fail(`did not end within ${END_MS / 1000} s`);
      });
      late.catch(() => undefined);
      await Promise.race([ended, late]);
      if (code !== 0 || recorder.result?.ok !== true) throw fail(`ended with ${code} or a wrong result`);
    },
  };
}
