/** Ping-pong over openib between two guests of a lab: with the library and without it. */
import { jobCommand } from "../demo/job-command.js";
import { SymvirtError } from "../errors.js";
import { labDown, labExec, labUp, MANAGEMENT_SUBNET, type OpenLab } from "../lab/index.js";
import { anySignal } from "../signals.js";
import { type OpenibPairs, type OverheadOptions, timePairs } from "./overhead.js";
import { parseTimed, variantProblem } from "./pingpong.js";

const VMS = ["vm1", "vm2"] as const;
const RUN_MS = 300_000;

/** The command of a run. The MCA parameters are the same: only the library is missing. Pure. */
export function openibCommand(variant: "off" | "on", args: readonly string[]): string[] {
  const [symvirt = "", mpirun = "", ...others] = jobCommand(
    { vms: VMS, ranksPerVm: 1, network: MANAGEMENT_SUBNET },
    "/opt/symvirt/build/workloads/pingpong",
    args,
  );
  const own = variant === "off" ? ["--no-preload"] : ["-x", "SYMVIRT_LOG=info"];
  // Without tcp: openib that did not come up must fail the run, not slow it down.
  return [symvirt, mpirun, ...own, "--mca", "btl", "openib,self,vader", ...others];
}

async function time(lab: OpenLab, variant: "off" | "on", args: readonly string[], signal: AbortSignal) {
  const { code, stdout, stderr } = await labExec(lab, VMS[0], openibCommand(variant, args), {
    signal: anySignal([signal, AbortSignal.timeout(RUN_MS)]),
  });
  signal.throwIfAborted();
  const fail = (what: string) => new SymvirtError("internal", `Ping-pong over openib (${variant}) ${what}`);
  if (code !== 0) throw fail(`ended with ${code}: ${stderr.slice(-2000)}`);
  const problem = variantProblem(variant, stderr, 100, "openib");
  if (problem !== undefined) throw fail(`is no measurement: ${problem}`);
  return parseTimed(stdout);
}

/** Boots a lab of two VMs, measures, and takes it down. */
export async function overheadInLab(
  name: string,
  { runs, bytes, seconds, say, signal }: Omit<OverheadOptions, "countRuns" | "openib">,
): Promise<OpenibPairs> {
  const { lab, accelerator } = await labUp({
    ...{ name, vms: VMS.length, hosts: VMS.length, ranks: 1, say, signal },
  });
  try {
    const args = ["--mode", "time", "--bytes", bytes.join(","), "--seconds", String(seconds)];
    const pairs = await timePairs(runs, "openib", say, (variant) => time(lab, variant, args, signal));
    return { accelerator, pairs };
  } finally {
    await labDown({ name, say });
  }
}
