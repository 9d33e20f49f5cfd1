/**
 * Keeps `released` and `holders`. A scan of all processes costs some milliseconds, so it runs when
 * something has changed that could matter, and again while a cycle waits for the last holder to go.
 */
import type { Logger } from "pino";
import type { HolderReport, RankReport } from "../protocol/messages.js";

const RETRY_MS = 250;
/** A rank that changes without end must not keep the result from those who wait for it. */
const MOST_ROUNDS = 3;

export interface ReleaseWatchOptions {
  findHolders: () => Promise<HolderReport[]>;
  /** True while somebody waits for the card to be released. */
  awaited: () => boolean;
  changed: () => void;
  log: Logger;
}

export class ReleaseWatch {
  readonly #options: ReleaseWatchOptions;
  #released = false;
  #holders: HolderReport[] = [];
  #running: Promise<void> | undefined;
  #again = false;
  #voids = 0;
  #timer: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(options: ReleaseWatchOptions) {
    this.#options = options;
  }

  get released(): boolean {
    return this.#released;
  }

  get holders(): HolderReport[] {
    return this.#holders;
  }

  /** A rank says it uses the card: what a scan found before is void. */
  void(): void {
    this.#released = false;
    this.#voids++;
  }

  /** Scans with all that is so now; resolves when the result is in. Calls made meanwhile share one more scan. */
  scan(): Promise<void> {
    if (this.#closed) return Promise.resolve();
    if (this.#running !== undefined) {
      this.#again = true;
      return this.#running;
    }
    this.#running = this.#loop().finally(() => {
      this.#running = undefined;
    });
    return this.#running;
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
  }

  async #loop(): Promise<void> {
    clearTimeout(this.#timer);
    for (let round = 1; round === 1 || (this.#again && !this.#closed); round++) {
      this.#again = false;
      const voids = this.#voids;
      let holders: HolderReport[];
      try {
        holders = await this.#options.findHolders();
      } catch (error) {
        // Without a proof the card counts as held.
        this.#options.log.error({ err: error }, "cannot scan for holders of the card");
        holders = [{ pid: 0, command: "", what: `scan failed: ${String(error)}`.slice(0, 96) }];
      }
      // A result is only worth something if nothing happened while it was made.
      if (this.#again && round < MOST_ROUNDS) continue;
      this.#again = false;
      // Opened while it was looked for: then there is no proof.
      const released = holders.length === 0 && voids === this.#voids;
      if (released !== this.#released || JSON.stringify(holders) !== JSON.stringify(this.#holders)) {
        this.#released = released;
        this.#holders = holders;
        this.#options.changed();
      }
    }
    if (!this.#closed && !this.#released && this.#options.awaited())
      this.#timer = setTimeout(() => void this.scan(), RETRY_MS);
  }
}

/** True if the rank by its own words uses the card, or is about to. */
export function usesCard(report: RankReport): boolean {
  if (report.openDescriptors > 0) return true;
  switch (report.state) {
    case "draining":
    case "closing":
    case "opening":
      return true;
    case "running":
      return report.route === "openib";
    case "init":
    case "parked":
    case "failed":
    case "inert":
    case "held":
    case "lost":
    case "left":
      return false;
  }
}
