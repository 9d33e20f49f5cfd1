/**
 * Copies of a VM's disks as of one instant: backup jobs, begun while the VM stands still. QEMU copies a cluster
 * before the guest may overwrite it, so the VM runs on while the rest is copied, and its image stays where it is.
 */
import { SymvirtError } from "../../errors.js";
import { abortError } from "../deadline.js";
import type { WritableDisk } from "../driver.js";
import { QmpCommandError } from "./qmp-errors.js";
import type { QmpReply } from "./qmp-types.js";
import type { QemuSession } from "./session.js";

/** Ids of our jobs and nodes begin so: a controller that takes over knows them by it. */
const PREFIX = "symvirt-";
const POLL_MS = 100;
/** Bytes per second; 0 is no limit. QEMU copies one piece and then waits for hours. */
const SLOWEST = 1;

type Block = QmpReply<"query-block">[number];
export type DiskCopy = WritableDisk & { copy: string };

/** The disks the guest can write to. Throws "refused" for one that cannot be copied. */
export async function writableDisks(session: QemuSession, signal: AbortSignal): Promise<WritableDisk[]> {
  const blocks = await session.execute("query-block", {}, signal);
  return blocks.flatMap((block) => {
    const { inserted } = block;
    return inserted === undefined || inserted.ro ? [] : [diskOf(session, block, inserted)];
  });
}

function diskOf(
  session: QemuSession,
  { device }: Block,
  { drv, image, "node-name": name = "" }: NonNullable<Block["inserted"]>,
): WritableDisk {
  // Of -blockdev there is no BlockBackend with a name: QEMU then takes the node's.
  const drive = device !== "" ? device : name;
  const backing = image["full-backing-filename"] ?? image["backing-filename"];
  const refuse = (why: string, hint: string) =>
    new SymvirtError("refused", `disk ${drive} of ${session.name} cannot be captured: ${why}`, { hint });
  if (drv !== "qcow2" && drv !== "raw")
    throw refuse(`its format is ${drv}`, "qcow2 and raw images can be captured");
  if (!image.filename.startsWith("/"))
    throw refuse(`its image is "${image.filename}"`, "give disks as files, with their absolute paths");
  return {
    ...{ drive, image: image.filename, format: drv },
    usedBytes: image["actual-size"] ?? image["virtual-size"],
    ...(backing === undefined ? {} : { backing }),
  };
}

/** Makes the images and opens them in QEMU; the VM may run. */
export async function prepareCopies(
  session: QemuSession,
  disks: readonly DiskCopy[],
  signal: AbortSignal,
): Promise<void> {
  const blocks = await session.execute("query-block", {}, signal);
  for (const [i, disk] of disks.entries()) {
    const image = blocks.find((b) => b.device === disk.drive || b.inserted?.["node-name"] === disk.drive)
      ?.inserted?.image;
    if (image === undefined)
      throw new SymvirtError("refused", `${session.name} has no disk ${disk.drive} any more`);
    const size = image["virtual-size"];
    const file = `${PREFIX}file-${i}`;
    const isOverlay = disk.backing !== undefined;
    await create(
      session,
      { driver: "file", filename: disk.copy, size: isOverlay ? 0 : rawSize(disk, size) },
      signal,
    );
    const [format, protocol] = nodesOf(disk, i, { flushed: false });
    await session.execute("blockdev-add", protocol, signal);
    if (disk.format === "qcow2") {
      const { "backing-filename-format": below } = image;
      const backing = isOverlay
        ? { "backing-file": disk.backing, ...(below === undefined ? {} : { "backing-fmt": below }) }
        : {};
      await create(session, { driver: "qcow2", file, size, ...backing }, signal);
    }
    await session.execute("blockdev-add", format, signal);
  }
}

/**
 * The copy's image and the file it is in. Not flushed at first: QEMU flushes all that it has open when the VM stops, and
 * once more when the snapshot's instant comes, both in the VM's pause.
 */
function nodesOf({ format, copy }: DiskCopy, i: number, { flushed }: { flushed: boolean }) {
  const file = `${PREFIX}file-${i}`;
  const cache = { "no-flush": !flushed };
  // `backing: null`: what lies below is only read, and that through the VM's own image.
  const open = format === "qcow2" ? { driver: "qcow2", backing: null } : { driver: "raw" };
  return [
    { ...open, "node-name": node(i), file, discard: "unmap", cache },
    { driver: "file", "node-name": file, filename: copy, locking: "off", cache },
  ] as const;
}

const node = (i: number): string => `${PREFIX}copy-${i}`;
const rawSize = (disk: DiskCopy, size: number): number => (disk.format === "raw" ? size : 0);

/**
 * Begins the copies; the VM must stand still when QEMU comes to it, so that they are all of one instant. What the guest
 * does not overwrite is not copied before `hurryCopies`: QEMU waits for what is under way before it takes the instant.
 */
export async function beginCopies(
  session: QemuSession,
  disks: readonly DiskCopy[],
  signal: AbortSignal,
): Promise<void> {
  await Promise.all(
    disks.map(({ drive, backing }, i) =>
      session.execute(
        "blockdev-backup",
        {
          ...{ "job-id": node(i), device: drive, target: node(i) },
          sync: backing === undefined ? "full" : "top",
          ...{ speed: SLOWEST, "auto-dismiss": false },
        },
        signal,
      ),
    ),
  );
}

/** From here on they are copied as fast as it goes. */
export async function hurryCopies(
  session: QemuSession,
  disks: readonly DiskCopy[],
  signal: AbortSignal,
): Promise<void> {
  for (const i of disks.keys())
    try {
      await session.execute("block-job-set-speed", { device: node(i), speed: 0 }, signal);
    } catch (error) {
      const jobs = await session.execute("query-jobs", {}, signal);
      // There was but one piece to copy.
      if (!jobs.some((j) => j.id === node(i) && j.status === "concluded")) throw error;
    }
}

/** Resolves when every copy is complete, on its host's disk, and closed. */
export async function finishCopies(
  session: QemuSession,
  disks: readonly DiskCopy[],
  signal: AbortSignal,
): Promise<void> {
  for (const [i, { drive, copy }] of disks.entries())
    await jobEnd(session, node(i), `copy of disk ${drive} to ${copy}`, signal);
  // QEMU flushes what it closes, unless it was told not to, and does not say when that fails. A reopen does, and flushes
  // by the options it had before: so it is the second that writes all of it to the disk.
  for (const [i, disk] of disks.entries())
    for (const _ of ["flushed from now on", "flush"])
      await session.execute("blockdev-reopen", { options: [...nodesOf(disk, i, { flushed: true })] }, signal);
  await removeNodes(session, signal);
}

/** Ends our jobs, whatever they are at, and closes our images. Idempotent. */
export async function abandonCopies(session: QemuSession, signal: AbortSignal): Promise<void> {
  for (const job of await session.execute("query-jobs", {}, signal)) {
    if (!job.id.startsWith(PREFIX)) continue;
    try {
      if (job.status !== "concluded") await session.execute("job-cancel", { id: job.id }, signal);
    } catch (error) {
      // It is ending by itself.
      if (!(error instanceof QmpCommandError)) throw error;
    }
    await jobEnd(session, job.id, "", signal).catch((error: unknown) => {
      if (!(error instanceof SymvirtError) || error.exit !== "rolledBack") throw error;
    });
  }
  await removeNodes(session, signal);
}

async function create(
  session: QemuSession,
  options: { driver: string } & Record<string, unknown>,
  signal: AbortSignal,
): Promise<void> {
  const id = `${PREFIX}create`;
  await session.execute("blockdev-create", { "job-id": id, options }, signal);
  await jobEnd(session, id, `making of the image ${String(options.filename ?? options.file)}`, signal);
}

/** Two controllers may do so at once (one was given up by the other): only that the job goes counts. */
async function dismiss(session: QemuSession, id: string, signal: AbortSignal): Promise<void> {
  try {
    await session.execute("job-dismiss", { id }, signal);
  } catch (error) {
    const left = (await session.execute("query-jobs", {}, signal)).some((j) => j.id === id);
    if (left) throw error;
  }
}

/** Waits until a job has concluded and dismisses it. Throws "rolledBack" with QEMU's words if it failed. */
async function jobEnd(session: QemuSession, id: string, what: string, signal: AbortSignal): Promise<void> {
  const events = await session.listen(["JOB_STATUS_CHANGE"], signal);
  try {
    for (;;) {
      const job = (await session.execute("query-jobs", {}, signal)).find((j) => j.id === id);
      // Dismissed by somebody before.
      if (job === undefined) return;
      if (job.status === "concluded") {
        await dismiss(session, id, signal);
        if (job.error === undefined) return;
        throw new SymvirtError("rolledBack", `${what} of ${session.name} failed: ${job.error}`);
      }
      await events.wake(signal, POLL_MS);
      while (events.poll() !== undefined);
      if (signal.aborted) throw abortError(signal, `${what} of ${session.name}: still ${job.status}`);
    }
  } finally {
    events.close();
  }
}

async function ourNodes(session: QemuSession, signal: AbortSignal): Promise<string[]> {
  const nodes = await session.execute("query-named-block-nodes", { flat: true }, signal);
  return nodes.flatMap((n) => (n["node-name"]?.startsWith(PREFIX) === true ? [n["node-name"]] : []));
}

/** The images first, then the files they are in. As in `dismiss`, only that they go counts. */
async function removeNodes(session: QemuSession, signal: AbortSignal): Promise<void> {
  const ours = await ourNodes(session, signal);
  const isFile = (name: string) => name.startsWith(`${PREFIX}file-`);
  for (const name of [...ours.filter((n) => !isFile(n)), ...ours.filter(isFile)])
    try {
      await session.execute("blockdev-del", { "node-name": name }, signal);
    } catch (error) {
      if ((await ourNodes(session, signal)).includes(name)) throw error;
    }
}
