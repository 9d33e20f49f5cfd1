/** Entry point of the `symvirt` command. */
import { run } from "./run.js";

// Whoever read us has gone (`| head`): no reason to fall over, least of all in the middle of a cycle.
for (const stream of [process.stdout, process.stderr])
  stream.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code !== "EPIPE") throw error;
  });

await run(process.argv.slice(2));
