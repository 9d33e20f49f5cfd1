/** SIGINT, SIGTERM and SIGHUP (the terminal is gone) as an AbortSignal: the verb rolls back, and then ends with 130 or 143. */
import { ExitCode, SymvirtError } from "../../errors.js";
import { say } from "./talk.js";

export interface StopSignals {
  signal: AbortSignal;
  /** 130 or 143 once a signal has come. */
  exitCode(): number | undefined;
  /** The same in place of the verb's own code; that a person must act (6) is never hidden by it. */
  exitCodeOr(own: number): number;
}

/** Runs `work` with the signals caught; a second signal says that the first is being obeyed. */
export async function catchingSignals<T>(
  work: (stop: StopSignals) => Promise<T>,
  reassure = "stopping; rolling back first",
): Promise<T> {
  const abort = new AbortController();
  let code: number | undefined;
  const stop = (name: "interrupted" | "terminated") => () => {
    say(code === undefined ? reassure : `still ${reassure}`);
    code ??= ExitCode[name];
    abort.abort(new SymvirtError(name, name === "interrupted" ? "interrupted by Ctrl-C" : "told to end"));
  };
  const onInterrupt = stop("interrupted");
  const onTerminate = stop("terminated");
  process.on("SIGINT", onInterrupt).on("SIGTERM", onTerminate).on("SIGHUP", onTerminate);
  try {
    return await work({
      signal: abort.signal,
      exitCode: () => code,
      exitCodeOr: (own) => (own === ExitCode.needsOperator ? own : (code ?? own)),
    });
  } catch (error) {
    // Whoever was waited for then is not out of reach.
    throw isBecauseOf(error, abort.signal) ? abort.signal.reason : error;
  } finally {
    process.off("SIGINT", onInterrupt).off("SIGTERM", onTerminate).off("SIGHUP", onTerminate);
  }
}

/** A wait that was given up says that nobody has answered. */
function isBecauseOf(error: unknown, { aborted, reason }: AbortSignal): boolean {
  if (!aborted) return false;
  return error === reason || (error instanceof SymvirtError && error.exit === "unreachable");
}
