/** `symvirt serve`: the daemon over one cluster file. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Command, Option } from "commander";
import { Controller } from "../controller/script.js";
import { ExitCode } from "../errors.js";
import { clusterPathOf } from "./shared/options.js";

interface ServeFlags {
  cluster?: string;
  listen: string[];
  tokenFile?: string;
  alertTokenFile?: string;
  allowRemote?: boolean;
  logLevel: string;
}

const collect = (value: string, all: string[]): string[] => [...all, value];

export function serveCommand(): Command {
  return new Command("serve")
    .description(
      "Daemon over one cluster file: the verbs over HTTP, events, metrics, and the policy of the file",
    )
    .option(
      "-c, --cluster <file>",
      "cluster file (default: $SYMVIRT_CLUSTER, ./cluster.yaml, /run/symvirt/lab/cluster.yaml)",
    )
    .option(
      "--listen <address>",
      "unix:PATH, 127.0.0.1:PORT or [::1]:PORT; may be repeated (default: unix:STATE/serve.sock)",
      collect,
      [],
    )
    .option(
      "--token-file <file>",
      "file (0600) with the bearer token of all that acts; without it nothing acts",
    )
    .option("--alert-token-file <file>", "file (0600) with a token that allows POST /v1/alerts only")
    .option(
      "--allow-remote",
      "let --listen name an address that other machines reach; reading needs the token, too",
    )
    .addOption(
      new Option("--log-level <level>", "least severe level logged (JSON lines on stderr)")
        .choices(["error", "warn", "info", "debug"])
        .default("info"),
    )
    .addHelpText(
      "after",
      "\nExample:\n  symvirt serve -c /etc/symvirt/cluster.yaml --token-file /etc/symvirt/token --listen 127.0.0.1:9720\n\n" +
        "On SIGTERM the running operation is rolled back first. Exit codes: 0 ended, 2 wrong usage, 3 refused,\n" +
        "6 the operation that was running needs a person.",
    )
    .action(async (flags: ServeFlags) => {
      process.exitCode = await runServer(flags);
    });
}

/** Serves until SIGTERM, SIGINT or SIGHUP (its terminal is gone). */
async function runServer(flags: ServeFlags): Promise<number> {
  // Only here: every other verb starts faster without the server's modules.
  const [{ serve }, { controllerVerbs }, { Access, readToken }, { parseListen }, { pino }] =
    await Promise.all([
      import("../serve/server.js"),
      import("../serve/controller-verbs.js"),
      import("../serve/access.js"),
      import("../serve/listen.js"),
      import("pino"),
    ]);
  const log = pino(
    { level: flags.logLevel, base: { pid: process.pid } },
    pino.destination({ fd: 2, sync: true }),
  );
  const access = new Access();
  if (flags.tokenFile !== undefined) access.add(readToken(flags.tokenFile), "all");
  if (flags.alertTokenFile !== undefined) access.add(readToken(flags.alertTokenFile), "alerts");
  const controller = await Controller.open(clusterPathOf(flags));
  const { cluster } = controller;
  const listen = flags.listen.length > 0 ? flags.listen : [`unix:${join(cluster.state, "serve.sock")}`];
  const stopped = new Promise<string>((resolve) => {
    for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const) process.on(signal, () => resolve(signal));
  });
  const manifest: unknown = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8"));
  const server = await serve({
    ...{ cluster, verbs: controllerVerbs(controller), access, listen: listen.map(parseListen) },
    allowRemote: flags.allowRemote === true,
    version: String((manifest as { version?: unknown }).version),
    log: (text) => log.info(text),
  });
  log.info({ cluster: cluster.name, listen: server.addresses }, "serves");
  const signal = await stopped;
  log.info({ signal }, "stops; a running operation is rolled back first");
  const last = await server.stop(`symvirt serve was told to end (${signal})`);
  log.info("ended");
  return last?.exitCode === ExitCode.needsOperator ? ExitCode.needsOperator : ExitCode.done;
}
