/** An empty guest of any size is moved and captured in the same time: its memory is filled first. */
import type { OpenLab } from "../lab/index.js";
import { inGuest } from "./lab-job.js";

/** Left to the guest when the rest of its memory is filled. */
const FREE_MIB = 640;

/** What neither compresses nor repeats within a page, as a job's data would. */
const fillScript = (mib: number): string =>
  `set -e; d=/run/symvirt-bench; mkdir -p $d; mount -t tmpfs -o size=${mib + 64}m tmpfs $d; ` +
  `dd if=/dev/urandom of=$d/0 bs=1M count=64 2>/dev/null; ` +
  `i=1; while [ $((i * 64)) -lt ${mib} ]; do cp $d/0 $d/$i; i=$((i + 1)); done`;

/** Fills all but 640 MiB of a guest's memory. */
export async function fillMemory(
  lab: OpenLab,
  vm: string,
  memoryMiB: number,
  say: (line: string) => void,
  signal: AbortSignal,
): Promise<void> {
  await inGuest(lab, vm, fillScript(memoryMiB - FREE_MIB), signal);
  say(`${vm}: ${memoryMiB - FREE_MIB} of ${memoryMiB} MiB are filled`);
}
