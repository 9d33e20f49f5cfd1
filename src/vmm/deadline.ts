/** Waits that end with their AbortSignal, and the error which says so. */
import { SymvirtError } from "../errors.js";

/**
 * The error of a wait whose signal was aborted: "deadline" for AbortSignal.timeout, the reason's own
 * exit for a SymvirtError, else "interrupted". `what` is the wait, e.g. "detach: hca0 of vm1 still present".
 */
export function abortError(signal: AbortSignal, what: string, hint?: string): SymvirtError {
  const reason: unknown = signal.reason;
  const options = { cause: reason, ...(hint === undefined ? {} : { hint }) };
  if (reason instanceof SymvirtError)
    return new SymvirtError(reason.exit, `${what}: ${reason.message}`, options);
  if (reason instanceof DOMException && reason.name === "TimeoutError") {
    return new SymvirtError("deadline", `${what}: deadline passed`, options);
  }
  return new SymvirtError("interrupted", `${what}: interrupted`, options);
}

/** Resolves after `ms`, or at once when the signal is aborted; the caller looks at the signal. Never rejects. */
export function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) {
      resolve();
      return;
    }
    const finish = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", finish);
      resolve();
    };
    const timer = setTimeout(finish, ms);
    signal.addEventListener("abort", finish, { once: true });
  });
}
