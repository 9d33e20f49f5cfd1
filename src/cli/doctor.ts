/** `symvirt doctor [VM]`: why a VM or its job cannot be migrated. */
import { Command } from "commander";
import { loadCluster } from "../controller/cluster-file.js";
import { examine } from "../controller/doctor.js";
import { ExitCode } from "../errors.js";
import { type ClusterFlags, clusterPathOf, withCluster } from "./shared/options.js";
import { catchingSignals } from "./shared/stop.js";
import { data, printJson, style } from "./shared/talk.js";

export function doctorCommand(): Command {
  return withCluster(new Command("doctor"))
    .description("Say for each VM (or one) what stands against migrating it, and what to do about it")
    .argument("[vm]", "VM of the cluster file")
    .addHelpText(
      "after",
      "\nExample:\n  symvirt doctor vm1\n\nExit code 0: nothing found, 3: something stands against it.",
    )
    .action(async (vm: string | undefined, flags: ClusterFlags) => {
      await catchingSignals(async ({ signal }) => {
        const diagnoses = await examine(loadCluster(clusterPathOf(flags)), { vm, signal });
        const well = diagnoses.every((d) => d.findings.every((f) => f.level === "note"));
        if (flags.json === true) printJson({ schemaVersion: 1, ok: well, vms: diagnoses });
        else {
          for (const { vm: name, host, findings } of diagnoses) {
            const good = findings.every((f) => f.level === "note");
            const verdict = good
              ? style(process.stdout, "green", "can be migrated")
              : style(process.stdout, "red", "cannot be migrated");
            data(`${name} on ${host}: ${verdict}`);
            for (const { text, hint } of findings)
              data(`  - ${text}${hint === undefined ? "" : `\n      ${hint}`}`);
          }
        }
        process.exitCode = well ? ExitCode.done : ExitCode.refused;
      }, "stopping");
    });
}
