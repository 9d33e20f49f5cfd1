/** `symvirt events`: the journal, as it was or as it grows. */
import { existsSync, watch } from "node:fs";
import { Command } from "commander";
import { loadCluster } from "../controller/cluster-file.js";
import { begunWords } from "../controller/interrupted.js";
import { type CycleTarget, Journal, type JournalRecord } from "../controller/state/journal.js";
import { SymvirtError } from "../errors.js";
import { anySignal } from "../signals.js";
import { type ClusterFlags, clusterPathOf, withCluster } from "./shared/options.js";
import { type ServerFlags, serverOf, withServer } from "./shared/server.js";
import { catchingSignals } from "./shared/stop.js";
import { data, printJson } from "./shared/talk.js";

interface EventsFlags extends ClusterFlags, ServerFlags {
  follow?: boolean;
}

const show = (flags: EventsFlags) => (record: JournalRecord) => {
  if (flags.json === true) printJson(record);
  else data(recordLine(record));
};

export function eventsCommand(): Command {
  return withServer(withCluster(new Command("events")))
    .description("Print the journal of all cycles; with --json one record a line")
    .option("-f, --follow", "go on as it grows, until Ctrl-C")
    .addHelpText("after", "\nExample:\n  symvirt events --follow")
    .action(async (flags: EventsFlags) => {
      await catchingSignals(async ({ signal: stopped, exitCode }) => {
        // A reader that has what it wanted (`| grep -m1`) ends it, too.
        const unread = new AbortController();
        process.stdout.once("error", () => unread.abort());
        const signal = anySignal([stopped, unread.signal]);
        const remote = await serverOf(flags);
        if (remote !== undefined) {
          const { readServerJournal } = await import("../serve/client-journal.js");
          const request = { follow: flags.follow === true, signal, onRecord: show(flags) };
          await readServerJournal(remote.target, request).catch((error: unknown) => {
            if (!signal.aborted) throw error;
          });
          process.exitCode = exitCode();
          return;
        }
        const cluster = loadCluster(clusterPathOf(flags));
        const journal = new Journal(cluster.state);
        let shown = 0;
        const showNew = () => {
          const records = journal.read();
          // A new file, which begins with the last cycle of the old one.
          if (records.length < shown) shown = 0;
          records.slice(shown).forEach(show(flags));
          shown = records.length;
        };
        showNew();
        if (flags.follow !== true) return;
        if (!existsSync(cluster.state))
          throw new SymvirtError("refused", `there is no state folder ${cluster.state} yet`, {
            hint: "it is made by the first `symvirt status` or `symvirt migrate`",
          });
        const watcher = watch(cluster.state, showNew);
        await new Promise<void>((resolve) => {
          if (signal.aborted) resolve();
          signal.addEventListener("abort", () => resolve(), { once: true });
        });
        watcher.close();
        process.exitCode = exitCode();
      }, "stopping");
    });
}

const whence = ({ set, from, to }: CycleTarget): string =>
  set === undefined && from !== to ? `, from ${from}` : "";

/** One record for people. */
export function recordLine(record: JournalRecord): string {
  switch (record.kind) {
    case "begin":
      return `${record.at} cycle ${record.target.cycle}: ${begunWords(record)}${whence(record.target)}`;
    case "phase": {
      const cause = record.cause === undefined ? "" : `: ${record.cause}`;
      return `${record.at} cycle ${record.cycle}: ${record.event}${cause} -> ${record.phase} [${record.effects.join(", ")}]`;
    }
    case "move":
      return `${record.at} cycle ${record.cycle}: a script moves ${record.vm} from ${record.from} to ${record.to}`;
    case "quiet":
      return `${record.at} cycle ${record.cycle}: job ${record.job} has nothing on the wire`;
    case "ready":
      return `${record.at} cycle ${record.cycle}: job ${record.job} uses the card again`;
    case "end":
      return `${record.at} cycle ${record.cycle}: ${record.outcome}: ${record.message}`;
  }
}
