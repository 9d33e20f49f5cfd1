/** From an error to what the user reads and the exit code of docs/operations.md. */
import { CommanderError } from "commander";
import { ExitCode, SymvirtError } from "../../errors.js";
import { printJson, say, style } from "./talk.js";

/** Tells the error on stderr (and as JSON on stdout when asked) and returns the exit code. */
export function report(error: unknown, options: { json?: boolean } = {}): number {
  if (error instanceof CommanderError) {
    // commander has printed its own message by now.
    if (error.exitCode === 0) return ExitCode.done;
    const message = error.message.replace(/^error: /, "");
    if (options.json === true) printJson({ schemaVersion: 1, ok: false, error: { exit: "usage", message } });
    return ExitCode.usage;
  }
  const prefix = style(process.stderr, "red", "symvirt:");
  if (error instanceof SymvirtError) {
    say(`${prefix} ${error.message}`);
    if (error.hint !== undefined) say(`  ${error.hint}`);
    if (options.json === true)
      printJson({
        schemaVersion: 1,
        ok: false,
        error: {
          exit: error.exit,
          message: error.message,
          ...(error.hint === undefined ? {} : { hint: error.hint }),
        },
      });
    return error.exitCode;
  }
  const isDebug = process.env.SYMVIRT_LOG === "debug";
  const text =
    error instanceof Error ? (isDebug ? error.stack : `${error.name}: ${error.message}`) : String(error);
  say(`${prefix} internal error: ${text ?? "unknown"}`);
  if (!isDebug) say("  run it again with SYMVIRT_LOG=debug for the stack, and please report it");
  if (options.json === true)
    printJson({ schemaVersion: 1, ok: false, error: { exit: "internal", message: String(error) } });
  return ExitCode.internal;
}
