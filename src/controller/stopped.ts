/** An operation that was told to stop before it touched anything. */
import { SymvirtError } from "../errors.js";

/** Says what stopped it, with its exit code: Ctrl-C, `symvirt abort`, or a `--timeout` that has passed. */
export function stoppedPlanning(stop: AbortSignal, cause?: unknown): SymvirtError {
  const reason: unknown = stop.reason;
  const words = reason instanceof Error ? reason.message : "told to stop";
  return new SymvirtError(
    reason instanceof SymvirtError ? reason.exit : "interrupted",
    `stopped while planning (${words}); nothing was touched`,
    { cause: cause ?? reason },
  );
}
