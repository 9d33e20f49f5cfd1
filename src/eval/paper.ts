/**
 * Figures of the paper this project follows: R. Takano et al., "Cooperative VM Migration", IEICE Trans. Inf. & Syst.
 * E96-D(12), 2013, doi 10.1587/transinf.E96.D.2675. Other cards (InfiniBand, 10 Gigabit Ethernet), other machines, KVM: their absolute
 * values cannot be held against ours. Quoted second-hand; look into the paper before you cite them.
 */
import type { PhaseTime } from "./world.js";

export interface PaperFigure {
  /** From what card to what card. */
  move: string;
  phases: readonly PhaseTime[];
}

export const paperCaption =
  "Takano et al. 2013, hot-plug and link-up alone: other hardware, not comparable in absolute terms";

export const paperFigures: readonly PaperFigure[] = [
  ["InfiniBand to InfiniBand", 3880, 29_900] as const,
  ["InfiniBand to Ethernet", 2800, 0] as const,
  ["Ethernet to InfiniBand", 1150, 29_800] as const,
  ["Ethernet to Ethernet", 130, 0] as const,
].map(([move, hotPlugMs, linkUpMs]) => ({
  move,
  // The paper gives the detach and the attach as one sum.
  phases: [
    { phase: "attach", ms: hotPlugMs },
    { phase: "link-up", ms: linkUpMs },
  ],
}));
