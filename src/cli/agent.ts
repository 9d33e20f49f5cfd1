/** `symvirt agent`: the daemon inside a guest. */
import { Command, Option } from "commander";
import { SymvirtError } from "../errors.js";

interface AgentFlags {
  port: string;
  socket: string;
  hooks: string;
  logLevel: string;
}

export function agentCommand(): Command {
  return new Command("agent")
    .description("Guest daemon: joins the MPI ranks of this VM and its cards to the host")
    .option(
      "--port <path>",
      "virtio port, or unix:PATH (connect), or unix-listen:PATH",
      "/dev/virtio-ports/org.symvirt.0",
    )
    .option("--socket <path>", "socket the ranks connect to", "/run/symvirt/ranks.sock")
    .option("--hooks <folder>", "folder with the executable post-attach", "/etc/symvirt/hooks.d")
    .addOption(
      new Option("--log-level <level>", "least severe level logged (JSON lines on stderr)")
        .choices(["error", "warn", "info", "debug"])
        .default("info"),
    )
    .action(runAgent);
}

/** Runs until SIGTERM, SIGINT or a failure that only a person can mend. */
async function runAgent(flags: AgentFlags): Promise<void> {
  // Only here: every other verb starts faster without the agent's modules.
  const [{ Agent }, { pino }] = await Promise.all([import("../agent/agent.js"), import("pino")]);
  const log = pino(
    { level: flags.logLevel, base: { pid: process.pid } },
    pino.destination({ fd: 2, sync: true }),
  );
  await new Promise<void>((resolve, reject) => {
    const agent = new Agent({
      ...flags,
      log,
      failed: (error) => end(error instanceof Error ? error : new SymvirtError("internal", String(error))),
    });
    const end = (error?: Error) => {
      agent.close();
      if (error === undefined) resolve();
      else reject(error);
    };
    for (const signal of ["SIGTERM", "SIGINT"] as const)
      process.once(signal, () => {
        log.info({ signal }, "agent ends");
        end();
      });
    log.info({ port: flags.port, socket: flags.socket }, "agent serves");
  });
}
