import { setMaxListeners } from "node:events";

/** Aborts with `reason` after `ms` milliseconds. Keeps no process alive. */
export function after(ms: number, reason: Error): AbortSignal {
  const late = new AbortController();
  setTimeout(() => late.abort(reason), ms).unref();
  return late.signal;
}

/**
 * Aborts when the first of `signals` does, with its reason. Use it instead of AbortSignal.any: in
 * Node 20 a signal made by AbortSignal.any does not keep an AbortSignal.timeout alive, so a deadline
 * that nobody else holds is collected and never fires (src/signals.test.ts shows both).
 */
export function anySignal(signals: readonly AbortSignal[]): AbortSignal {
  const either = new AbortController();
  const listeners: { signal: AbortSignal; listener: () => void }[] = [];
  const stop = (reason: unknown): void => {
    for (const { signal, listener } of listeners) signal.removeEventListener("abort", listener);
    either.abort(reason);
  };
  for (const signal of signals) {
    if (signal.aborted) {
      stop(signal.reason);
      break;
    }
    const listener = (): void => stop(signal.reason);
    // One signal stops many waits at a time: that is no leak, and no warning for the user.
    setMaxListeners(0, signal);
    signal.addEventListener("abort", listener, { once: true });
    listeners.push({ signal, listener });
  }
  return either.signal;
}
