/** Ping-pong over openib between two guests of a lab: with the library and without it. */
import { jobCommand } from "../demo/job-command.js";
import { SymvirtError } from "../errors.js";
import { labDown, labExec, labUp, MANAGEMENT_SUBNET, type OpenLab } from "../lab/index.js";
import { anySignal } from "../signals.js";
import { type OpenibPairs, type OverheadOptions, timePairs } from "./overhead.js";
import { parseTimed, variantProblem } from "./pingpong.js";

const VMS = ["vm1", "vm2"] as const;
const RUN_MS = 300_000;

/**
 * The command of a run; pure. Debian's openib finds no connection manager for RoCE without the library, so "off" has
 * it loaded for that alone (SYMVIRT_PROXY=none): the modules and all functions ob1 calls are openib's own.
 */
export function openibCommand(variant: "off" | "on", args: readonly string[]): string[] {
  const [symvirt = "", mpirun = "", ...others] = jobCommand(
    { vms: VMS, ranksPerVm: 1, network: MANAGEMENT_SUBNET },
    "/opt/symvirt/build/workloads/pingpong",
    args,
  );
  const own = ["-x", `SYMVIRT_PROXY=${variant === "off" ? "none" : ""}`, "-x", "SYMVIRT_LOG=info"];
  // Without tcp: openib that did not come up must fail the run, not slow it down.
  return [symvirt, mpirun, ...own, "--mca", "btl", "openib,self,vader", ...others];
}

/** Whether both ranks of an "off" say that there is no proxy in them; what is wrong, or undefined. */
export function noProxyProblem(stderr: string): string | undefined {
  const none = [...stderr.matchAll(/inert: SYMVIRT_PROXY is none/g)].length;
  return none === 2 ? undefined : `${none} of 2 ranks say that they have no proxy`;
}

async function time(lab: OpenLab, variant: "off" | "on", args: readonly string[], signal: AbortSignal) {
  const { code, stdout, stderr } = await labExec(lab, VMS[0], openibCommand(variant, args), {
    signal: anySignal([signal, AbortSignal.timeout(RUN_MS)]),
  });
  signal.throwIfAborted();
  const fail = (what: string) => new SymvirtError("internal", `Ping-pong over openib (${variant}) ${what}`);
  if (code !== 0) throw fail(`ended with ${code}: ${stderr.slice(-2000)}`);
  const problem = variant === "off" ? noProxyProblem(stderr) : variantProblem(variant, stderr, 100, "openib");
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
