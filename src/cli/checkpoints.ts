/** `symvirt checkpoints`: what is in the checkpoint store. */
import { Command, InvalidArgumentError } from "commander";
import { CheckpointStore, type VerifyReport } from "../checkpoint/store.js";
import { loadCluster } from "../controller/cluster-file.js";
import { SymvirtError } from "../errors.js";
import { entryLines, listLines } from "./checkpoint-tables.js";
import { type ClusterFlags, clusterPathOf, withCluster } from "./shared/options.js";
import { catchingSignals } from "./shared/stop.js";
import { data, printJson, say, style } from "./shared/talk.js";

const storeOf = (flags: ClusterFlags): CheckpointStore =>
  new CheckpointStore(loadCluster(clusterPathOf(flags)));

export function checkpointsCommand(): Command {
  // Before the verb as after it.
  const command = withCluster(new Command("checkpoints"))
    .description("List, show, verify and remove the checkpoints of this cluster")
    .addHelpText("after", "\nExample:\n  symvirt checkpoints verify 20261125T013000Z-nightly");
  command.addCommand(listCommand(), { isDefault: true });
  for (const sub of [showCommand(), verifyCommand(), removeCommand(), pruneCommand()])
    command.addCommand(sub);
  return command;
}

function listCommand(): Command {
  return withCluster(new Command("ls"))
    .description("All checkpoints, oldest first, also damaged and unfinished ones (the default)")
    .action((_: ClusterFlags, command: Command) => {
      const flags = command.optsWithGlobals<ClusterFlags>();
      const store = storeOf(flags);
      const checkpoints = store.list();
      if (flags.json === true) printJson({ schemaVersion: 1, path: store.path, checkpoints });
      else for (const line of listLines(store.path, checkpoints)) data(line);
    });
}

function showCommand(): Command {
  return withCluster(new Command("show"))
    .description("One checkpoint: its VMs, jobs and parts, and how the cut was made")
    .argument("<id>")
    .action((id: string, _: ClusterFlags, command: Command) => {
      const flags = command.optsWithGlobals<ClusterFlags>();
      const checkpoint = storeOf(flags).entry(id);
      if (flags.json === true) printJson({ schemaVersion: 1, checkpoint });
      else for (const line of entryLines(checkpoint)) data(line);
    });
}

function verifyCommand(): Command {
  return withCluster(new Command("verify"))
    .description("Read every part and compare its SHA-256: of one checkpoint, or of all of this cluster")
    .argument("[id]")
    .action(async (id: string | undefined, _: ClusterFlags, command: Command) => {
      const flags = command.optsWithGlobals<ClusterFlags>();
      await catchingSignals(async ({ signal }) => {
        const store = storeOf(flags);
        const ours = () => store.list().filter(({ state }) => state === "complete" || state === "damaged");
        const reports: VerifyReport[] = [];
        for (const one of id === undefined ? ours().map((entry) => entry.id) : [id]) {
          const report = await verifyOne(store, one, signal, id === undefined);
          if (report === undefined) continue;
          reports.push(report);
          if (flags.json !== true) for (const line of verdictLines(report)) data(line);
        }
        const bad = reports.filter((report) => !report.ok).map((report) => report.id);
        if (flags.json === true) printJson({ schemaVersion: 1, ok: bad.length === 0, checkpoints: reports });
        else if (reports.length === 0) say(`no checkpoints of this cluster in ${store.path}`);
        if (bad.length > 0) process.exitCode = 3;
      }, "stopping");
    });
}

/** Of all: one that has gone meanwhile is left out, and one whose manifest cannot be read is a bad one, not the end. */
async function verifyOne(
  store: CheckpointStore,
  id: string,
  signal: AbortSignal,
  ofAll: boolean,
): Promise<VerifyReport | undefined> {
  try {
    return await store.verify(id, { signal });
  } catch (error) {
    if (!ofAll || !(error instanceof SymvirtError)) throw error;
    if (error.exit === "usage") return undefined;
    if (error.exit !== "refused") throw error;
    return { id, ok: false, parts: [{ file: "manifest.json", ok: false, trouble: error.message }] };
  }
}

function verdictLines({ id, ok, parts }: VerifyReport): string[] {
  const word = ok ? style(process.stdout, "green", "well") : style(process.stdout, "red", "damaged");
  const bad = parts.filter((part) => !part.ok).map((part) => `  - ${part.trouble}`);
  return [`${id}: ${word}, ${parts.length} ${parts.length === 1 ? "part" : "parts"} read`, ...bad];
}

function removeCommand(): Command {
  return withCluster(new Command("rm"))
    .description("Remove one checkpoint; refused while it is in use")
    .argument("<id>")
    .option(
      "--force",
      "also if VMs were restarted from it and may run on its files: they must not run any more",
    )
    .action((id: string, _: ClusterFlags, command: Command) => {
      const flags = command.optsWithGlobals<ClusterFlags & { force?: boolean }>();
      const store = storeOf(flags);
      const inside = snapshotsInside(store, id);
      store.remove(id, { evenIfBase: flags.force === true });
      for (const line of inside) say(line);
      if (flags.json === true) printJson({ schemaVersion: 1, removed: [id] });
      else data(`removed ${id}`);
    });
}

/** The disks' own snapshots outlive the checkpoint. */
function snapshotsInside(store: CheckpointStore, id: string): string[] {
  const vms = store.entry(id).manifest?.vms ?? [];
  return vms.flatMap(({ vm, disks }) =>
    disks.flatMap(({ image, kept }) =>
      kept.kind === "internal-snapshot" ? [`${vm}: the snapshot ${kept.snapshot} stays in ${image}`] : [],
    ),
  );
}

function pruneCommand(): Command {
  return withCluster(new Command("prune"))
    .description("Remove the oldest complete checkpoints of this cluster but N; those in use stay")
    .requiredOption("--keep <n>", "how many to keep", atLeastOne)
    .action((_: ClusterFlags, command: Command) => {
      const flags = command.optsWithGlobals<ClusterFlags & { keep: number }>();
      const report = storeOf(flags).prune(flags.keep);
      if (flags.json === true) printJson({ schemaVersion: 1, ...report });
      else for (const id of report.removed) data(`removed ${id}`);
      for (const { why } of report.refused) say(`not removed: ${why}`);
      if (report.removed.length + report.refused.length === 0)
        say(`nothing to remove: there are ${report.kept.length}`);
    });
}

function atLeastOne(text: string): number {
  if (!/^[1-9]\d{0,5}$/.test(text)) throw new InvalidArgumentError("a whole number, at least 1");
  return Number(text);
}
