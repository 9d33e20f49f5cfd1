/** Checkpoints for people: the list, and one with all there is to know of it. */
import { bytesOf, type CapturedVm, type Disk, type Manifest } from "../checkpoint/manifest.js";
import type { CheckpointEntry } from "../checkpoint/store.js";
import { style, table } from "./shared/talk.js";

/** The list: one row each, then what is wrong with those that are not complete, and who uses which. */
export function listLines(path: string, entries: readonly CheckpointEntry[]): string[] {
  if (entries.length === 0) return [`no checkpoints in ${path}`];
  const rows = entries.map(({ id, manifest: m, storedBytes, state }) => [
    id,
    state,
    m === undefined ? "-" : m.vms.map((vm) => vm.vm).join(","),
    m === undefined ? "-" : mebibytes(m.vms.reduce((sum, vm) => sum + vm.memoryBytes, 0)),
    mebibytes(storedBytes),
    m === undefined ? "-" : `${Math.ceil(Math.max(...m.vms.map((vm) => vm.pauseMs)))} ms`,
    m === undefined || m.jobs.length === 0 ? "-" : m.jobs.map((job) => job.job).join(","),
  ]);
  const troubles = entries.filter((e) => e.trouble !== "").map((e) => `${e.id}: ${e.trouble}`);
  const users = entries.flatMap((e) =>
    e.state === "writing" ? [] : e.users.map((user) => `${e.id}: ${user}`),
  );
  return [
    ...table([["ID", "STATE", "VMS", "MEMORY", "STORED", "PAUSE", "JOBS"], ...rows]),
    ...troubles,
    ...users,
  ];
}

/** One checkpoint. */
export function entryLines({ id, state, trouble, users, manifest: m }: CheckpointEntry): string[] {
  const colour = state === "complete" ? "green" : state === "writing" ? "yellow" : "red";
  const head = `checkpoint ${id}: ${style(process.stdout, colour, state)}`;
  const lines = [trouble === "" ? head : `${head}: ${trouble}`, ...users.map((user) => `  in use: ${user}`)];
  return m === undefined ? lines : [...lines, ...manifestLines(m)];
}

function manifestLines(m: Manifest): string[] {
  const { raw, stored } = bytesOf(m);
  const vms = m.vms.map((v) => [
    v.vm,
    v.host,
    mebibytes(v.memoryBytes),
    `${Math.ceil(v.pauseMs)} ms`,
    v.cards.map((card) => `${card.tag} (${card.driver})`).join(",") || "-",
    v.machine,
    v.qemu,
  ]);
  const jobs = m.jobs.map(({ job, worldSize, ranks }) => {
    const epochs = [...new Set(ranks.map((rank) => rank.epoch))].sort((a, b) => a - b).join(", ");
    return `job ${job}: ${worldSize} ${worldSize === 1 ? "rank" : "ranks"}, epoch ${epochs}`;
  });
  return [
    `  made ${m.createdAt} by symvirt ${m.symvirt}, cluster ${m.cluster}, cycle ${m.cycle}`,
    `  cut: ${m.cut.method}, ${m.cut.capture}, ${Math.ceil(m.cut.withoutNetworkMs)} ms without network`,
    `  ${mebibytes(raw)} captured, ${mebibytes(stored)} stored`,
    "",
    ...table([["VM", "HOST", "MEMORY", "PAUSE", "CARDS", "MACHINE", "QEMU"], ...vms]),
    "",
    ...table([["PART", "VM", "WHAT", "CAPTURED", "STORED", "SHA-256"], ...m.vms.flatMap(partRows)]),
    ...(jobs.length === 0 ? [] : ["", ...jobs]),
  ];
}

function partRows({ vm, ram, disks }: CapturedVm): string[][] {
  const memory = [
    ram.file,
    vm,
    "memory",
    mebibytes(ram.rawBytes),
    mebibytes(ram.storedBytes),
    short(ram.sha256),
  ];
  return [memory, ...disks.map((disk) => diskRow(vm, disk))];
}

function diskRow(vm: string, { drive, image, kept }: Disk): string[] {
  if (kept.kind === "internal-snapshot")
    return ["-", vm, `${drive}: snapshot ${kept.snapshot} in ${image}`, "-", "-", "-"];
  const { file, rawBytes, storedBytes, sha256 } = kept.part;
  return [file, vm, `${drive}: ${kept.kind}`, mebibytes(rawBytes), mebibytes(storedBytes), short(sha256)];
}

const short = (sha256: string): string => sha256.slice(0, 12);

function mebibytes(bytes: number): string {
  return `${(bytes / 2 ** 20).toFixed(1)} MiB`;
}
