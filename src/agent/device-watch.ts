/**
 * Keeps the list of cards current: re-read on the kernel's uevents, and by a poll, because port states
 * and GIDs change without an event. The poll is quick only for a while after something has changed.
 */
import type { Logger } from "pino";
import { type Addon, type Descriptor, errorCode } from "./addon.js";
import { type Card, isLinkUp, readCards, readPort } from "./devices.js";
import { parseUevent } from "./uevent.js";

const DEBOUNCE_MS = 40;
const QUICK_POLL_MS = 250;
const SLOW_POLL_MS = 2000;
/** Every so many slow polls all is read, events or not. */
const FULL_EVERY = 8;
/** A port that did not come up within this long will not come up in the next 250 ms either. */
const QUICK_FOR_MS = 120_000;
const SUBSYSTEMS = new Set(["net", "infiniband", "infiniband_verbs", "pci"]);

export class DeviceWatch {
  readonly #sysfs: string;
  readonly #log: Logger;
  readonly #changed: (cards: readonly Card[]) => void;
  #events: Descriptor | undefined;
  #debounce: NodeJS.Timeout | undefined;
  #poll: NodeJS.Timeout | undefined;
  #cards: Card[] = [];
  #text = "";
  #slowPolls = 0;
  #lastChange = performance.now();
  #closed = false;

  /** `changed` is called when the cards differ from the last reading, never from the constructor. */
  constructor(options: {
    addon: Addon;
    sysfs: string;
    log: Logger;
    changed: (cards: readonly Card[]) => void;
  }) {
    this.#sysfs = options.sysfs;
    this.#log = options.log;
    this.#changed = options.changed;
    this.#listen(options.addon);
    this.#cards = readCards(this.#sysfs);
    this.#text = JSON.stringify(this.#cards);
    this.#arm();
  }

  get cards(): readonly Card[] {
    return this.#cards;
  }

  /** Reads now (a hook has just made a device, say). */
  refresh(): void {
    if (this.#closed) return;
    const cards = readCards(this.#sysfs);
    const text = JSON.stringify(cards);
    if (text !== this.#text) {
      this.#cards = cards;
      this.#text = text;
      this.#lastChange = performance.now();
      this.#changed(cards);
    }
    this.#arm();
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#debounce);
    clearTimeout(this.#poll);
    this.#events?.close();
  }

  #arm(): void {
    clearTimeout(this.#poll);
    const quick =
      performance.now() - this.#lastChange < QUICK_FOR_MS && this.#cards.some((card) => !isLinkUp(card));
    this.#poll = quick
      ? setTimeout(() => this.refresh(), QUICK_POLL_MS)
      : setTimeout(() => this.#slowPoll(), SLOW_POLL_MS);
  }

  /** Cards come and go with events; only ports must be looked at, which is a tenth of the work. */
  #slowPoll(): void {
    this.#slowPolls++;
    const full = this.#events === undefined || this.#slowPolls % FULL_EVERY === 0;
    if (full || this.#cards.some((card) => card.verbs !== "" && this.#portChanged(card))) this.refresh();
    else this.#arm();
  }

  #portChanged(card: Card): boolean {
    const { port, gid } = readPort(card.verbs, this.#sysfs);
    return port !== card.port || gid !== card.gid;
  }

  #listen(addon: Addon): void {
    try {
      const events = addon.openUevents();
      this.#events = events;
      events.watch(true, false, () => this.#drain(events));
    } catch (error) {
      this.#log.warn({ err: error }, "no kernel events here, polling only");
    }
  }

  #drain(events: Descriptor): void {
    for (;;) {
      let raw: Buffer | null;
      try {
        raw = events.receiveUevent();
      } catch (error) {
        // ENOBUFS: some were lost, which is as good as one of ours.
        if (errorCode(error) !== "ENOBUFS") throw error;
        this.#soon();
        continue;
      }
      if (raw === null) return;
      const event = parseUevent(raw);
      if (event !== undefined && SUBSYSTEMS.has(event.subsystem)) this.#soon();
    }
  }

  #soon(): void {
    // Not pushed back by later events: a steady stream of them must not starve the reading.
    if (this.#debounce !== undefined) return;
    this.#debounce = setTimeout(() => {
      this.#debounce = undefined;
      this.refresh();
    }, DEBOUNCE_MS);
  }
}
