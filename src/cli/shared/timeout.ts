/** `--timeout` of an acting verb as a signal. */
import { SymvirtError } from "../../errors.js";
import { anySignal } from "../../signals.js";

/** A signal that aborts with `signal` or after `ms`, and what ends its timer. */
export function withTimeout(
  signal: AbortSignal,
  ms: number | undefined,
): { signal: AbortSignal; clear: () => void } {
  if (ms === undefined) return { signal, clear: () => undefined };
  const timeout = new AbortController();
  const passed = new SymvirtError("deadline", `--timeout (${ms / 1000} s) has passed`);
  const timer = setTimeout(() => timeout.abort(passed), ms);
  return { signal: anySignal([signal, timeout.signal]), clear: () => clearTimeout(timer) };
}
