/** Each rank's own times and its traffic before and after the cycle, for the report. */
import type { RankReport } from "../protocol/messages.js";
import type { Fleet } from "./fleet.js";
import { changesRoutes } from "./movers.js";
import type { RankSpan } from "./report.js";
import type { CycleTarget } from "./state/journal.js";

export type RankPictures = Map<string, { rank: number; vm: string; moves: boolean; report: RankReport }>;

/** What the ranks of the target say of themselves at this moment (of the last state their agents sent). */
export function pictureRanks(fleet: Fleet, target: CycleTarget): RankPictures {
  const pictures: RankPictures = new Map();
  for (const targetJob of target.jobs) {
    const { job } = targetJob;
    for (const { rank, vm } of targetJob.ranks) {
      const reports = fleet.roster.state(vm)?.jobs.find((j) => j.job === job)?.ranks ?? [];
      const report = reports.find((r) => r.rank === rank);
      const moves = changesRoutes(targetJob, rank);
      if (report !== undefined) pictures.set(`${job}/${rank}`, { rank, vm, moves, report });
    }
  }
  return pictures;
}

export function rankSpans(before: RankPictures, after: RankPictures): RankSpan[] {
  const side = ({ route, epoch, openib, tcp }: RankReport) => ({ route, epoch, openib, tcp });
  return [...before]
    .map(([key, { rank, vm, moves: moved, report }]) => {
      const last = after.get(key)?.report ?? report;
      return { rank, vm, moved, timings: last.timings, before: side(report), after: side(last) };
    })
    .sort((a, b) => a.rank - b.rank);
}
