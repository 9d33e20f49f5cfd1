/** `symvirt mpirun`: every option belongs to mpirun, so commander only hands the words on. */
import { Command } from "commander";

export function mpirunCommand(): Command {
  return new Command("mpirun")
    .description("Run mpirun so that the job's VMs can be migrated (all arguments are mpirun's own)")
    .usage("[--print-cmd] [--no-preload] [mpirun's arguments...]")
    .argument("[words...]")
    .allowUnknownOption()
    .passThroughOptions()
    .helpOption(false)
    .action(async (words: string[]) => {
      const { runMpirun } = await import("../mpirun/mpirun.js");
      process.exitCode = await runMpirun(words);
    });
}
