/** `symvirt abort`: end the running cycle, or finish one whose controller was killed. */
import { Command } from "commander";
import { Controller } from "../controller/script.js";
import { ExitCode } from "../errors.js";
import { type ClusterFlags, clusterPathOf, withCluster } from "./shared/options.js";
import { openProgress } from "./shared/progress.js";
import { catchingSignals } from "./shared/stop.js";
import { printJson, say } from "./shared/talk.js";

export function abortCommand(): Command {
  return withCluster(new Command("abort"))
    .description("Roll the running cycle back, or finish one whose controller was killed")
    .addHelpText(
      "after",
      "\nExample:\n  symvirt abort\n\n" +
        "Exit codes: 0 the job runs and nothing is left to do, 3 the cycle was done before it could be aborted,\n" +
        "6 a person must act (the message says how).",
    )
    .action(async (flags: ClusterFlags) => {
      await catchingSignals(async ({ signal }) => {
        const controller = await Controller.open(clusterPathOf(flags));
        const progress = openProgress();
        let result: Awaited<ReturnType<typeof controller.abort>>;
        try {
          result = await controller.abort({
            signal,
            onProgress: (target, now) => progress.update(target, now),
          });
        } finally {
          await progress.end();
        }
        const { outcome, message, report } = result;
        if (flags.json === true) printJson(report ?? { schemaVersion: 1, outcome, message });
        say(message);
        // A cycle finished forward by its own controller was not aborted; one that we finished is what was asked.
        const tooLate = outcome === "done" && report?.verb === "migrate";
        process.exitCode =
          outcome === "needs-operator" ? ExitCode.needsOperator : tooLate ? ExitCode.refused : ExitCode.done;
        if (tooLate) say("the cycle was done before it could be aborted");
      }, "stopping");
    });
}
