/**
 * Listeners for QMP events. A listener gets a queue of its own from the moment it is made, so make it
 * BEFORE sending the command that causes the event: then the event cannot be missed.
 */
import { abortError, pause } from "../deadline.js";

export interface QmpEvent {
  name: string;
  /** As sent; validate with the schema of the event (qmp-types.ts). */
  data: unknown;
}

/** A guest can cause events: the oldest are dropped beyond this many unread ones. */
export const MAX_UNREAD_EVENTS = 1024;

export class EventListener {
  readonly #accepts: (event: QmpEvent) => boolean;
  readonly #onClose: (listener: EventListener) => void;
  #queue: QmpEvent[] = [];
  #wake: (() => void) | undefined;
  #ended: Error | undefined;
  /** Events dropped because nobody read them. */
  dropped = 0;

  constructor(accepts: (event: QmpEvent) => boolean, onClose: (listener: EventListener) => void) {
    this.#accepts = accepts;
    this.#onClose = onClose;
  }

  /** For the session only. */
  offer(event: QmpEvent): void {
    if (!this.#accepts(event)) return;
    if (this.#queue.length >= MAX_UNREAD_EVENTS) {
      this.#queue.shift();
      this.dropped++;
    }
    this.#queue.push(event);
    this.#wake?.();
  }

  /** For the session only: `next` rejects with this once the queue is empty. */
  end(error: Error): void {
    this.#ended ??= error;
    this.#wake?.();
  }

  /** Takes the next event if there is one already. */
  poll(): QmpEvent | undefined {
    return this.#queue.shift();
  }

  /** The next event. Rejects when the session ends, or on abort with an error that names `what`. */
  async next(signal: AbortSignal, what: string): Promise<QmpEvent> {
    for (;;) {
      const event = this.#queue.shift();
      if (event !== undefined) return event;
      if (this.#ended !== undefined) throw this.#ended;
      if (signal.aborted) throw abortError(signal, what);
      await this.wake(signal);
    }
  }

  /**
   * Resolves when there is something to read, `ms` have passed or the signal is aborted; one waiter at a time.
   * The end of the session wakes it too, but only once: whoever polls in a loop must not spin then.
   */
  wake(signal: AbortSignal, ms?: number): Promise<void> {
    if (this.#queue.length > 0 || signal.aborted) return Promise.resolve();
    if (this.#ended !== undefined) return ms === undefined ? Promise.resolve() : pause(ms, signal);
    return new Promise((resolve) => {
      const finish = () => {
        if (timer !== undefined) clearTimeout(timer);
        signal.removeEventListener("abort", finish);
        this.#wake = undefined;
        resolve();
      };
      const timer = ms === undefined ? undefined : setTimeout(finish, ms);
      signal.addEventListener("abort", finish, { once: true });
      this.#wake = finish;
    });
  }

  close(): void {
    this.#onClose(this);
    this.#queue = [];
  }
}
