/** What a phase of a checkpoint or restart waits for: as in conditions.ts, and of the cards in all VMs of the set. */
import type { Card } from "../cluster-file.js";
import { type ConditionView, judge, type Verdict } from "../conditions.js";
import type { Condition } from "../cycle.js";

export interface SetView extends ConditionView {
  /** By VM and tag, the cards that are to appear. */
  cards: ReadonlyMap<string, ReadonlyMap<string, Card>>;
  /** By VM, its devices with an active port before anything was touched. */
  activeIn: ReadonlyMap<string, number>;
}

/** Of "released" and "link-up" every VM with cards is judged; of the rest the ranks, wherever they are. */
export function judgeSet(condition: Condition, view: SetView): Verdict {
  if (condition !== "released" && condition !== "link-up") return judge(condition, view);
  const late: string[] = [];
  for (const [vm, expected] of view.cards) {
    if (expected.size === 0) continue;
    const activeBefore = view.activeIn.get(vm) ?? expected.size;
    const verdict = judge(condition, { ...view, target: { ...view.target, vm }, expected, activeBefore });
    if (verdict.met === "failed") return verdict;
    if (verdict.met === false) late.push(...verdict.late);
  }
  return late.length === 0 ? { met: true } : { met: false, late };
}
