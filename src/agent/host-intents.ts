/**
 * What the host of this session wants of each job, ready to be repeated to a rank that (re)connects.
 * Kept apart from the job table: after a restart of the agent the host may speak before the ranks are
 * back, and a rank that is back late must still get all of it.
 */
import type { BoardPart, Want } from "../protocol/messages.js";
import { encodeBoard, encodeWant } from "./rank-wire.js";
import { type Budget, compareSteps, type Part, StepBuffer, type StepPair } from "./step-buffer.js";

const MAX_JOBS = 16;
const MAX_BOARD_BYTES = 64 << 20;

/** A board part with its datagram, encoded once for all ranks. */
interface StoredPart extends Part {
  datagram: Buffer;
}

interface Intent {
  want: Want | undefined;
  board: StepBuffer<StoredPart>;
}

export class HostIntents {
  readonly #budget: Budget = { used: 0, max: MAX_BOARD_BYTES };
  readonly #jobs = new Map<string, Intent>();

  /** Takes a want; returns the datagram for the ranks, or undefined if it is older than the last. */
  want(want: Want): Buffer | undefined {
    const intent = this.#intent(want.job);
    if (intent.want !== undefined && compareSteps(want, intent.want) < 0) return undefined;
    intent.want = want;
    intent.board.advance(want);
    return encodeWant(want);
  }

  /** Takes a board part; returns the datagram for the ranks, or why it was not taken. */
  board(part: BoardPart): Buffer | "old" | "full" | "invalid" {
    const data = Buffer.from(part.data, "base64");
    if (part.offset + data.length > part.total || (data.length === 0 && part.total > 0)) return "invalid";
    const intent = this.#intent(part.job);
    if (intent.want !== undefined && compareSteps(part, intent.want) < 0) return "old";
    const datagram = encodeBoard({ ...part, data });
    const { cycle, step, key, rank, offset } = part;
    const outcome = intent.board.put({ cycle, step, key, rank, offset, data: datagram, datagram });
    // The host tells again what a rank may have missed.
    return outcome === "stored" || outcome === "repeated" ? datagram : outcome;
  }

  /** Everything a newly connected rank of the job has missed, the want last. */
  replay(job: string): Buffer[] {
    const intent = this.#jobs.get(job);
    if (intent === undefined) return [];
    const datagrams = Array.from(intent.board.parts(), (part) => part.datagram);
    if (intent.want !== undefined) datagrams.push(encodeWant(intent.want));
    return datagrams;
  }

  /** The pair the host last wanted of the job. */
  step(job: string): StepPair | undefined {
    return this.#jobs.get(job)?.want;
  }

  /**
   * True while the host wants the card of this VM free: some job's ranks, or those of them that `isHere`
   * says are on this VM, are to be away from it.
   */
  wantsRelease(isHere: (job: string, ranks: readonly number[]) => boolean): boolean {
    for (const [job, { want }] of this.#jobs)
      if (want !== undefined && want.phase !== "run-openib")
        if (want.moving === undefined || isHere(job, want.moving)) return true;
    return false;
  }

  /** A new session: nothing the old host said counts. */
  forget(): void {
    for (const { board } of this.#jobs.values()) board.clear();
    this.#jobs.clear();
  }

  #intent(job: string): Intent {
    const known = this.#jobs.get(job);
    if (known !== undefined) return known;
    if (this.#jobs.size >= MAX_JOBS) {
      const [oldest] = this.#jobs;
      if (oldest !== undefined) {
        oldest[1].board.clear();
        this.#jobs.delete(oldest[0]);
      }
    }
    const intent: Intent = { want: undefined, board: new StepBuffer(this.#budget) };
    this.#jobs.set(job, intent);
    return intent;
  }
}
