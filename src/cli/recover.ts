/** `symvirt recover VM`: openib again for a job that runs on over tcp. */
import { Command } from "commander";
import { Controller } from "../controller/script.js";
import { exitOf, tellReport } from "./migrate.js";
import { type ClusterFlags, clusterPathOf, withCluster } from "./shared/options.js";
import { openProgress } from "./shared/progress.js";
import { catchingSignals } from "./shared/stop.js";
import { printJson } from "./shared/talk.js";

export function recoverCommand(): Command {
  return withCluster(new Command("recover"))
    .description("Bring openib back for the job of a VM that runs over tcp, with a card of its host")
    .argument("<vm>", "VM of the cluster file")
    .addHelpText(
      "after",
      "\nExample:\n  symvirt recover vm1\n\n" +
        "Exit codes: 0 done, 3 refused before anything was touched, 5 it failed and the job runs over tcp as before,\n" +
        "6 a person must act (the message says how), 7 VMM or agent unreachable.",
    )
    .action(async (vm: string, flags: ClusterFlags) => {
      await catchingSignals(async (stop) => {
        const controller = await Controller.open(clusterPathOf(flags));
        const progress = openProgress();
        try {
          const report = await controller.recover({
            ...{ vm, signal: stop.signal },
            onProgress: (target, now) => progress.update(target, now),
          });
          await progress.end();
          if (flags.json === true) printJson(report);
          tellReport(report);
          process.exitCode = stop.exitCodeOr(exitOf(report));
        } finally {
          await progress.end();
        }
      });
    });
}
