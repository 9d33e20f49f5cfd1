/** A command line of symvirt in the test's own process. */
import { vi } from "vitest";
import { run } from "../../src/cli/run.js";

/** Runs a command line in this process; captures what it says. */
export async function symvirt(...argv: string[]): Promise<{ code: number; out: string; err: string }> {
  let out = "";
  let err = "";
  const stdout = vi.spyOn(process.stdout, "write").mockImplementation((text) => {
    out += String(text);
    return true;
  });
  const stderr = vi.spyOn(process.stderr, "write").mockImplementation((text) => {
    err += String(text);
    return true;
  });
  process.exitCode = undefined;
  await run(argv);
  const code = Number(process.exitCode ?? 0);
  process.exitCode = undefined;
  stdout.mockRestore();
  stderr.mockRestore();
  return { code, out, err };
}
