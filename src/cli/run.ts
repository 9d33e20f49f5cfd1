/** The `symvirt` command: joins the verbs and maps errors to exit codes. */
import { Command } from "commander";
import { ExitCode } from "../errors.js";
import { symvirtVersion } from "../version.js";
import { report } from "./shared/errors.js";

/** Each verb is loaded when it is asked for, so that `symvirt mpirun` starts fast. */
const verbs: Readonly<Record<string, () => Promise<Command>>> = {
  plan: async () => (await import("./plan.js")).planCommand(),
  migrate: async () => (await import("./migrate.js")).migrateCommand(),
  evacuate: async () => (await import("./evacuate.js")).evacuateCommand(),
  recover: async () => (await import("./recover.js")).recoverCommand(),
  status: async () => (await import("./status.js")).statusCommand(),
  abort: async () => (await import("./abort.js")).abortCommand(),
  doctor: async () => (await import("./doctor.js")).doctorCommand(),
  checkpoint: async () => (await import("./checkpoint.js")).checkpointCommand(),
  restart: async () => (await import("./restart.js")).restartCommand(),
  checkpoints: async () => (await import("./checkpoints.js")).checkpointsCommand(),
  events: async () => (await import("./events.js")).eventsCommand(),
  serve: async () => (await import("./serve.js")).serveCommand(),
  mpirun: async () => (await import("./mpirun.js")).mpirunCommand(),
  agent: async () => (await import("./agent.js")).agentCommand(),
  lab: async () => (await import("./lab.js")).labCommand(),
  demo: async () => (await import("./demo.js")).demoCommand(),
};

/** Errors come back to us instead of ending the process, in every verb and its sub-verbs. */
function throwErrors(command: Command): void {
  command.exitOverride().showHelpAfterError("(--help says more)");
  for (const sub of command.commands) throwErrors(sub);
}

/** Runs one command line (without node and script). Sets process.exitCode and never rejects. */
export async function run(argv: readonly string[]): Promise<void> {
  try {
    await parse(argv);
  } catch (error) {
    process.exitCode = report(error, { json: argv.includes("--json") });
  }
}

async function parse(argv: readonly string[]): Promise<void> {
  const program = new Command("symvirt")
    .description("Migrate VMs with passthrough network cards under running MPI jobs")
    .version(symvirtVersion())
    .enablePositionalOptions()
    .addHelpText("after", "\nExample:\n  symvirt lab up\n  symvirt migrate vm1 --to h3");
  const asked = argv.find((word) => !word.startsWith("-"));
  const wanted = asked !== undefined && Object.hasOwn(verbs, asked) ? [asked] : Object.keys(verbs);
  for (const name of wanted) {
    const load = verbs[name];
    if (load !== undefined) program.addCommand(await load());
  }
  throwErrors(program);
  if (argv.length === 0) {
    program.outputHelp({ error: true });
    process.exitCode = ExitCode.usage;
    return;
  }
  await program.parseAsync([...argv], { from: "user" });
}
