/** Ping-pong over openib between two guests of a lab: with the library and without it. */
import { jobCommand } from "../demo/job-command.js";
import { SymvirtError } from "../errors.js";
import { labCopy, labDown, labExec, labUp, MANAGEMENT_SUBNET, type OpenLab } from "../lab/index.js";
import { anySignal } from "../signals.js";
import { type Bursts, callgrind, costOfMessage, countArguments } from "./instructions.js";
import {
  interleaved,
  type OpenibPairs,
  type OverheadOptions,
  openibVariants,
  timePairs,
} from "./overhead.js";
import { parseTimed, variantProblem } from "./pingpong.js";

const VMS = ["vm1", "vm2"] as const;
const RUN_MS = 300_000;
/** Under callgrind in an emulated guest. */
const COUNT_MS = 600_000;
/** Within the credits of openib (16 buffers of eager RDMA), so that no message waits for the receiver. */
const overOpenib: Bursts = { rounds: 40, few: 4, many: 12, settleMs: 200 };
const VALGRIND = "/root/valgrind";
const valgrindParts = [
  "/usr/bin/valgrind.bin",
  ...["callgrind-amd64-linux", "vgpreload_core-amd64-linux.so", "default.supp"].map(
    (file) => `/usr/libexec/valgrind/${file}`,
  ),
];

type OpenibVariant = (typeof openibVariants)[number];

export interface OpenibRun {
  args: readonly string[];
  /** Two ranks in one guest instead of one in each of two. */
  oneGuest?: boolean;
  /** What the program is run under, and the environment that takes. */
  under?: readonly string[];
  environment?: readonly string[];
}

/**
 * The command of a run; pure. Debian's openib finds no connection manager for RoCE without the library, so "off" has
 * it loaded for that alone (SYMVIRT_PROXY=none): the modules and all functions ob1 calls are openib's own.
 */
export function openibCommand(variant: OpenibVariant, run: OpenibRun): string[] {
  const { args, oneGuest = false, under = [], environment = [] } = run;
  const [program = "", ...others] = [...under, "/opt/symvirt/build/workloads/pingpong", ...args];
  const [symvirt = "", mpirun = "", ...options] = jobCommand(
    {
      vms: oneGuest ? VMS.slice(0, 1) : VMS,
      ranksPerVm: oneGuest ? VMS.length : 1,
      network: MANAGEMENT_SUBNET,
    },
    program,
    others,
  );
  const own = [`SYMVIRT_PROXY=${variant === "off" ? "none" : ""}`, "SYMVIRT_LOG=info", ...environment];
  // Without tcp and shared memory: openib that did not come up must fail the run, not slow it down.
  return [
    ...[symvirt, mpirun, ...own.flatMap((entry) => ["-x", entry])],
    ...["--mca", "btl", "openib,self", ...options],
  ];
}

/** Whether both ranks of an "off" say that there is no proxy in them; what is wrong, or undefined. */
export function noProxyProblem(stderr: string): string | undefined {
  const none = [...stderr.matchAll(/inert: SYMVIRT_PROXY is none/g)].length;
  return none === 2 ? undefined : `${none} of 2 ranks say that they have no proxy`;
}

/** Runs it to its end; the library must have been in the state the variant is named after. */
async function runOpenib(
  lab: OpenLab,
  variant: OpenibVariant,
  run: OpenibRun & { fragments: number; deadlineMs: number },
  signal: AbortSignal,
): Promise<string> {
  const { code, stdout, stderr } = await labExec(lab, VMS[0], openibCommand(variant, run), {
    signal: anySignal([signal, AbortSignal.timeout(run.deadlineMs)]),
  });
  signal.throwIfAborted();
  const fail = (what: string) => new SymvirtError("internal", `Ping-pong over openib (${variant}) ${what}`);
  if (code !== 0) throw fail(`ended with ${code}: ${stderr.slice(-2000)}`);
  const problem =
    variant === "off" ? noProxyProblem(stderr) : variantProblem(variant, stderr, run.fragments, "openib");
  if (problem !== undefined) throw fail(`is no measurement: ${problem}`);
  return stdout;
}

/** Valgrind of this machine into the first guest, which has none; both are Debian 12. */
async function bringValgrind(lab: OpenLab, signal: AbortSignal): Promise<void> {
  await labExec(lab, VMS[0], ["mkdir", "-p", VALGRIND], { signal });
  for (const part of valgrindParts) await labCopy(lab, part, `${VMS[0]}:${VALGRIND}/`, signal);
}

function countOpenib(lab: OpenLab, variant: OpenibVariant, signal: AbortSignal): Promise<number> {
  return costOfMessage(overOpenib, async (messages) => {
    const profile = (rank: string) => `${VALGRIND}/profile.${rank}`;
    const under = [
      ...[`${VALGRIND}/valgrind.bin`, ...callgrind],
      `--callgrind-out-file=${profile("%q{OMPI_COMM_WORLD_RANK}")}`,
    ];
    const run = {
      args: countArguments(overOpenib, messages),
      oneGuest: true,
      ...{ under, environment: [`VALGRIND_LIB=${VALGRIND}`] },
      ...{ fragments: messages * overOpenib.rounds, deadlineMs: COUNT_MS },
    };
    await runOpenib(lab, variant, run, signal);
    const read = async (rank: number) =>
      (await labExec(lab, VMS[0], ["grep", "-E", "^(totals|summary):", profile(`${rank}`)], { signal }))
        .stdout;
    return [await read(0), await read(1)];
  });
}

/** Boots a lab of two VMs, measures, and takes it down. */
export async function overheadInLab(
  name: string,
  { runs, countRuns, bytes, seconds, say, signal }: Omit<OverheadOptions, "openib">,
): Promise<OpenibPairs> {
  const { lab, accelerator } = await labUp({
    ...{ name, vms: VMS.length, hosts: VMS.length, ranks: 1, say, signal },
  });
  try {
    if (countRuns > 0) await bringValgrind(lab, signal);
    const counts = await interleaved(countRuns, openibVariants, async (variant, run) => {
      const count = await countOpenib(lab, variant, signal);
      say(
        `instructions over openib, run ${run} of ${countRuns}, ${variant}: ${count.toFixed(1)} per message`,
      );
      return count;
    });
    const args = ["--mode", "time", "--bytes", bytes.join(","), "--seconds", String(seconds)];
    const pairs = await timePairs(runs, openibVariants, "openib", say, async (variant) =>
      parseTimed(await runOpenib(lab, variant, { args, fragments: 100, deadlineMs: RUN_MS }, signal)),
    );
    return { accelerator, counts: countRuns > 0 ? counts : null, pairs };
  } finally {
    await labDown({ name, say });
  }
}
