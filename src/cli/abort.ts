/** `symvirt abort`: end the running cycle, or finish one whose controller was killed. */
import { Command } from "commander";
import { Controller } from "../controller/script.js";
import { ExitCode } from "../errors.js";
import { type ClusterFlags, clusterPathOf, withCluster } from "./shared/options.js";
import { openProgress } from "./shared/progress.js";
import { catchingSignals } from "./shared/stop.js";
import { type ServerFlags, serverOf, showView, withServer } from "./shared/server.js";
import { printJson, say } from "./shared/talk.js";

export function abortCommand(): Command {
  return withServer(withCluster(new Command("abort")))
    .description("Roll the running cycle back, or finish one whose controller was killed")
    .option(
      "--gone <host...>",
      "this host is off for good: what an interrupted cycle had there is not looked for",
      [],
    )
    .addHelpText(
      "after",
      "\nExample:\n  symvirt abort\n\n" +
        "Exit codes: 0 the job runs and nothing is left to do, 3 the cycle was done before it could be aborted,\n" +
        "6 a person must act (the message says how).",
    )
    .action(async (flags: ClusterFlags & ServerFlags & { gone: string[] }) => {
      await catchingSignals(async ({ signal }) => {
        const remote = await serverOf(flags);
        if (remote !== undefined) {
          process.exitCode = await abortThere(remote, flags.gone, signal, flags.json === true);
          return;
        }
        const controller = await Controller.open(clusterPathOf(flags));
        const progress = openProgress();
        let result: Awaited<ReturnType<typeof controller.abort>>;
        try {
          result = await controller.abort({
            ...{ signal, gone: flags.gone },
            onProgress: (target, now) => progress.update(target, now),
          });
        } finally {
          await progress.end();
        }
        const { outcome, message, report } = result;
        if (flags.json === true) printJson(report ?? { schemaVersion: 1, outcome, message });
        say(message);
        // A cycle finished forward by its own controller was not aborted; one that we finished is what was asked.
        const tooLate = outcome === "done" && report !== null && report.verb !== "abort";
        process.exitCode =
          outcome === "needs-operator" ? ExitCode.needsOperator : tooLate ? ExitCode.refused : ExitCode.done;
        if (tooLate) say("the cycle was done before it could be aborted");
      }, "stopping");
    });
}

/** The server stops its operation, or finishes an interrupted cycle; waits for the end. */
async function abortThere(
  { client, target }: NonNullable<Awaited<ReturnType<typeof serverOf>>>,
  gone: readonly string[],
  signal: AbortSignal,
  json: boolean,
): Promise<number> {
  const progress = openProgress();
  let view: Awaited<ReturnType<typeof client.operate>>;
  try {
    view = await client.operate(target, "/v1/abort", {
      body: { gone },
      signal,
      onProgress: showView(progress),
    });
  } finally {
    await progress.end();
  }
  // Stopped before its cycle began: nothing was touched.
  const wasStopped =
    view.verb !== "abort" && (view.error?.exit === "interrupted" || view.error?.exit === "terminated");
  const report = wasStopped
    ? { schemaVersion: 1, outcome: "rolled-back", message: view.error?.message ?? "" }
    : (client.reportOf(view) as { outcome: string; message: string });
  if (json) printJson(report);
  say(report.message);
  if (report.outcome === "needs-operator") return ExitCode.needsOperator;
  const tooLate = view.verb !== "abort" && report.outcome === "done";
  if (tooLate) say("it was done before it could be aborted");
  return tooLate || view.exitCode === ExitCode.refused ? ExitCode.refused : ExitCode.done;
}
