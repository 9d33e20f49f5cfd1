/** QEMU's own snapshot of memory and disk (`snapshot-save`), to compare with: the VM stands still until all is written. */
import type { Cluster } from "../controller/cluster-file.js";
import { SymvirtError } from "../errors.js";
import { pause } from "../vmm/deadline.js";
import { qemuTarget } from "../vmm/qemu/driver.js";
import { QemuSession } from "../vmm/qemu/session.js";

const TAG = "symvirt-bench";
const POLL_MS = 20;

/** Saves one and removes it. Milliseconds from the command, which stops the VM, to RESUME. The VM must have no card that cannot be saved. */
export async function saveSnapshot(
  cluster: Cluster,
  vm: string,
  host: string,
  signal: AbortSignal,
): Promise<number> {
  const session = new QemuSession(qemuTarget(cluster, vm, host));
  try {
    const blocks = await session.execute("query-block", {}, signal);
    const devices = blocks.flatMap(({ inserted }) =>
      inserted === undefined || inserted.ro || inserted.drv !== "qcow2" || inserted["node-name"] === undefined
        ? []
        : [inserted["node-name"]],
    );
    const [vmstate] = devices;
    if (vmstate === undefined)
      throw new SymvirtError("refused", `${vm} has no qcow2 disk to put a snapshot into`);
    const events = await session.listen(["RESUME"], signal);
    try {
      const job = `${TAG}-save`;
      const began = performance.now();
      await session.execute("snapshot-save", { "job-id": job, tag: TAG, vmstate, devices }, signal);
      let ms: number | undefined;
      while (ms === undefined) {
        const { name } = await events.next(signal, `snapshot-save of ${vm}`);
        if (name === "RESUME") ms = performance.now() - began;
      }
      await jobEnd(session, job, signal);
      await session.execute("snapshot-delete", { "job-id": `${TAG}-delete`, tag: TAG, devices }, signal);
      await jobEnd(session, `${TAG}-delete`, signal);
      return ms;
    } finally {
      events.close();
    }
  } finally {
    await session.close();
  }
}

async function jobEnd(session: QemuSession, id: string, signal: AbortSignal): Promise<void> {
  for (;;) {
    const job = (await session.execute("query-jobs", {}, signal)).find((one) => one.id === id);
    if (job?.status === "concluded") {
      await session.execute("job-dismiss", { id }, signal);
      if (job.error !== undefined)
        throw new SymvirtError("internal", `${id} of ${session.name}: ${job.error}`);
      return;
    }
    if (job === undefined)
      throw new SymvirtError("internal", `${id} of ${session.name} is not known to QEMU`);
    await pause(POLL_MS, signal);
    signal.throwIfAborted();
  }
}
