/** The cycle's times for its report: which VM was in which phase, and when. */
import type { Phase } from "./cycle.js";
import type { CyclePhase, HoldReport, PhaseSpan } from "./report.js";

const reported: Partial<Record<Phase, CyclePhase>> = {
  prepare: "prepare",
  drain: "drain",
  "tear-down": "tear-down",
  wait: "wait",
  detach: "detach",
  "pre-copy": "pre-copy",
  "switch-over": "downtime",
  attach: "attach",
  "link-up": "link-up",
  "re-init": "re-init",
};
/** Phases every VM of the jobs goes through; the others are the moving VM's alone. */
const ofAll = new Set<CyclePhase>(["drain", "tear-down", "re-init"]);

export function reportedPhase(phase: Phase): CyclePhase | undefined {
  return phase.startsWith("undo:") ? "roll-back" : reported[phase];
}

export class Spans {
  readonly #moving: string;
  readonly #all: readonly string[];
  readonly #now: () => number;
  readonly #list: PhaseSpan[] = [];
  #open = new Map<string, { phase: CyclePhase; startMs: number }>();

  /** @param now milliseconds since the cycle began */
  constructor(moving: string, vmsOfJobs: readonly string[], now: () => number) {
    this.#moving = moving;
    this.#all = [...new Set([moving, ...vmsOfJobs])];
    this.#now = now;
  }

  /** The cycle goes into a phase. Undo phases follow each other as one "roll-back". */
  enter(phase: Phase, withJobs: boolean): void {
    const now = this.#now();
    const name = reportedPhase(phase);
    for (const [vm, span] of this.#open)
      if (name !== "roll-back" || span.phase !== "roll-back") this.#close(vm, now);
    if (name === undefined) return;
    const vms = ofAll.has(name) && withJobs ? this.#all : [this.#moving];
    for (const vm of vms) if (!this.#open.has(vm)) this.#open.set(vm, { phase: name, startMs: now });
  }

  /** One VM is through with the phase before the others are. */
  done(vm: string): void {
    this.#close(vm, this.#now());
  }

  /** The guest stood still for the last `ms` of the span before: they belong to "downtime". */
  shiftDowntime(ms: number): void {
    const open = this.#open.get(this.#moving);
    const before = this.#list.findLast((s) => s.vm === this.#moving && s.phase === "pre-copy");
    if (open?.phase !== "downtime" || before === undefined) return;
    const taken = Math.min(ms, before.ms);
    before.ms -= taken;
    open.startMs -= taken;
  }

  /** @param holds of the moving VM's ranks; each is a span of its own beside what the VM is in. */
  end(holds: readonly HoldReport[] = []): PhaseSpan[] {
    const now = this.#now();
    for (const vm of [...this.#open.keys()]) this.#close(vm, now);
    const held = holds.map(({ orderedMs, releasedMs, goneOnMs }): PhaseSpan => {
      const endMs = goneOnMs ?? releasedMs ?? now;
      return { vm: this.#moving, phase: "held", startMs: orderedMs, ms: endMs - orderedMs };
    });
    return [...this.#list, ...held].map((s) => ({
      ...s,
      startMs: Math.round(s.startMs),
      ms: Math.round(s.ms),
    }));
  }

  #close(vm: string, now: number): void {
    const open = this.#open.get(vm);
    if (open === undefined) return;
    this.#open.delete(vm);
    this.#list.push({ vm, phase: open.phase, startMs: open.startMs, ms: now - open.startMs });
  }
}
