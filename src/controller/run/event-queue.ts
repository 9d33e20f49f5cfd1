/** The events of a cycle, taken one at a time in the order they came; those that come meanwhile wait. */
export interface EventQueueOptions<E> {
  take: (event: E) => void;
  /** All events are taken. */
  idle: () => void;
  crash: (error: unknown) => void;
}

export class EventQueue<E> {
  readonly #options: EventQueueOptions<E>;
  readonly #waiting: E[] = [];
  #busy = false;

  constructor(options: EventQueueOptions<E>) {
    this.#options = options;
  }

  /** An event is being taken: what is seen now is between two states. */
  get busy(): boolean {
    return this.#busy;
  }

  push(event: E): void {
    this.#waiting.push(event);
    if (this.#busy) return;
    this.#busy = true;
    try {
      for (let next = this.#waiting.shift(); next !== undefined; next = this.#waiting.shift())
        this.#options.take(next);
    } catch (error) {
      this.#options.crash(error);
      return;
    } finally {
      this.#busy = false;
    }
    this.#options.idle();
  }
}
