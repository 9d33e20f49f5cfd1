/** How the journal names an effect of a reducer. */
import type { SetEffect } from "../checkpoint/set-cycle.js";
import type { Effect } from "../cycle.js";

export function effectName(effect: Effect | SetEffect): string {
  switch (effect.do) {
    case "order":
      return `order ${effect.want} step ${effect.step}`;
    case "hold":
    case "release":
      return `${effect.do} step ${effect.step}`;
    case "op":
      return effect.op;
    case "watch":
      return `watch ${effect.condition}`;
    case "arm":
      return `arm ${effect.deadline}`;
    case "end":
      return `end ${effect.outcome}`;
    case "cancel":
      return "cancel";
  }
}
