/** Entry point of the `symvirt` command. */
import { ExitCode } from "../errors.js";
import { run } from "./run.js";

// Whoever read us has gone (`| head`), the terminal is closed (EIO), the disk of a log is full: no reason to fall over,
// least of all in the middle of a cycle. Output that is lost otherwise than by its reader's wish fails the command, at
// its end.
let lost: NodeJS.ErrnoException | undefined;
process.stderr.on("error", () => undefined);
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code !== "EPIPE") lost ??= error;
});
process.on("exit", () => {
  if (lost !== undefined && !process.exitCode) process.exitCode = ExitCode.internal;
});

await run(process.argv.slice(2));
