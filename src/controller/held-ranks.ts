/**
 * What comes of the order to hold the ranks of the moving VM (cooperative convergence), for the report and `status`. The
 * cycle does not wait for any of it: a rank that computes is held when it comes, and if it does not come nothing fails.
 */
import { type ConditionView, lateness, livingRanks, reportOf } from "./conditions.js";
import type { HoldReport } from "./report.js";

interface Hold extends HoldReport {
  step: number;
  releaseStep?: number;
  isOverdue: boolean;
}

export class HeldRanks {
  readonly #now: () => number;
  readonly #holds: Hold[] = [];

  /** @param now milliseconds since the cycle began */
  constructor(now: () => number) {
    this.#now = now;
  }

  ordered(step: number, cause: string): void {
    const orderedMs = Math.round(this.#now());
    const times = { orderedMs, heldMs: null, releasedMs: null, goneOnMs: null };
    this.#holds.push({ step, cause, ...times, late: [], isOverdue: false });
  }

  released(step: number, view: ConditionView): void {
    const hold = this.#holds.at(-1);
    if (hold === undefined) return;
    if (hold.heldMs === null && !hold.isOverdue) hold.late = lateRanks(hold.step, view);
    hold.releaseStep = step;
    hold.releasedMs = Math.round(this.#now());
  }

  /** The hold that is on, and who does not stand still yet. */
  now(view: ConditionView): { cause: string; late: string[]; overdue: boolean } | undefined {
    const hold = this.#holds.at(-1);
    if (hold === undefined || hold.releasedMs !== null) return undefined;
    const late = lateRanks(hold.step, view);
    return { cause: hold.cause, late, overdue: hold.isOverdue && late.length > 0 };
  }

  /** Looks at what the ranks say now. */
  look(view: ConditionView): void {
    const hold = this.#holds.at(-1);
    if (hold === undefined || hold.goneOnMs !== null) return;
    const { releaseStep } = hold;
    if (releaseStep === undefined) {
      if (hold.heldMs !== null || lateRanks(hold.step, view).length > 0) return;
      hold.heldMs = Math.round(this.#now());
    } else if (ranksOf(view).every((r) => (reportOf(view.roster, r)?.step ?? 0) >= releaseStep)) {
      hold.goneOnMs = Math.round(this.#now());
    }
  }

  /** The deadline "hold" has passed: who is late now is in the report, also if they come. */
  overdue(view: ConditionView): void {
    const hold = this.#holds.at(-1);
    if (hold === undefined || hold.heldMs !== null || hold.releasedMs !== null) return;
    hold.isOverdue = true;
    hold.late = lateRanks(hold.step, view);
  }

  reports(): HoldReport[] {
    return this.#holds.map(({ step: _, releaseStep: __, isOverdue: ___, ...report }) => report);
  }
}

function ranksOf(view: ConditionView) {
  return livingRanks(view).filter(({ vm }) => vm === view.target.vm);
}

function lateRanks(step: number, view: ConditionView): string[] {
  return ranksOf(view).flatMap((rank) => {
    const report = reportOf(view.roster, rank);
    const isCurrent = report?.cycle === view.target.cycle && report.step === step;
    return isCurrent && report.state === "held" ? [] : [lateness(rank, report, isCurrent, view)];
  });
}
