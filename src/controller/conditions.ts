/** What a phase waits for, decided from what the guests say now: true, not yet (and who is late), or failed. */
import type { DeviceReport, RankReport } from "../protocol/messages.js";
import type { Board } from "./board.js";
import type { Card } from "./cluster-file.js";
import type { Condition } from "./cycle.js";
import { plainText } from "./plain-text.js";
import type { Roster } from "./roster.js";
import { changesRoutes } from "./movers.js";
import type { CycleTarget } from "./state/journal.js";

export interface ConditionView {
  target: CycleTarget;
  step: number;
  roster: Roster;
  board: Board;
  /** "job/rank" of ranks that have died or left: nobody waits for their jobs. */
  lost: ReadonlySet<string>;
  /** By VM, why a post of its ranks was not taken in this step. */
  refused?: ReadonlyMap<string, string>;
  /** By tag, the card that is to appear in the guest. */
  expected: ReadonlyMap<string, Card>;
  /** Devices of the moving VM with an active port before anything was touched. */
  activeBefore: number;
  /** Why there is no session with a VM's agent, undefined when there is one. */
  silent: (vm: string) => string | undefined;
}

export type Verdict = { met: true } | { met: false; late: string[] } | { met: "failed"; why: string };

/** Ranks named in a sentence. */
const SHOWN_RANKS = 8;

type TargetRank = CycleTarget["jobs"][number]["ranks"][number] & {
  job: string;
  /** It changes the routes to all its peers; the others only those to such ranks. */
  moves: boolean;
};

/** Ranks of the cycle that still matter: jobs that have lost a rank cannot be waited for. */
export function livingRanks(view: Pick<ConditionView, "target" | "lost">): TargetRank[] {
  return view.target.jobs
    .filter(({ job, ranks }) => !ranks.some((r) => view.lost.has(`${job}/${r.rank}`)))
    .flatMap((job) => job.ranks.map((r) => ({ ...r, job: job.job, moves: changesRoutes(job, r.rank) })));
}

/** The rank's own last words, only from the VM it was on when the cycle began: what others say of it is not heard. */
export function reportOf(
  roster: Roster,
  rank: Pick<TargetRank, "vm" | "job" | "rank">,
): RankReport | undefined {
  const job = roster.state(rank.vm)?.jobs.find((j) => j.job === rank.job);
  return job?.ranks.find((r) => r.rank === rank.rank);
}

/** Whether one rank has done what the order of this step asks of it. */
export function rankIs(
  condition: "parked" | "on-tcp" | "settled" | "running" | "held",
  rank: TargetRank,
  view: ConditionView,
): boolean {
  const report = reportOf(view.roster, rank);
  if (condition === "settled" && !view.board.isBetween(rank.job)) return true;
  if (report === undefined || report.cycle !== view.target.cycle) return false;
  const current = report.step === view.step;
  if (condition === "parked") return current && report.state === "parked";
  if (condition === "on-tcp") return current && isOnTcp(rank, report);
  if (condition === "settled") return current && ["running", "failed"].includes(report.state);
  if (condition === "held" && view.target.strategy === "live") return current && isOnTcp(rank, report);
  if (condition === "held")
    return (
      (current && report.state === "parked") || (report.step >= view.step - 1 && report.state === "failed")
    );
  if (!current || report.state !== "running") return false;
  if (rank.tcpOnly || report.tcpOnly) return true;
  const tornDown = view.board.wasQuiet(rank.job);
  // It was away from the card at the begin, and is as it was.
  if (rank.away && !(rank.moves && tornDown)) return true;
  // Torn down in this cycle: it must have come up as a new generation, not be the old one.
  const renewed = !rank.moves || !tornDown || report.epoch > rank.epoch;
  return report.route === "openib" && renewed;
}

/**
 * Runs over tcp and has let the card go; a rank that knows no other route has none to leave, and one that only
 * changes its routes to the moving ranks keeps the card for the others.
 */
function isOnTcp(rank: TargetRank, report: RankReport): boolean {
  if (report.state !== "running") return false;
  if (!rank.moves) return true;
  return rank.tcpOnly || report.tcpOnly || (report.route === "tcp" && report.openDescriptors === 0);
}

export function judge(condition: Condition, view: ConditionView): Verdict {
  switch (condition) {
    case "quiet":
    case "parked":
    case "on-tcp":
    case "settled":
    case "running":
    case "held":
      return judgeRanks(condition, view);
    case "released":
      return judgeReleased(view);
    case "link-up":
      return judgeLinkUp(view);
  }
}

/** Conditions of the way back, which a rank that has failed a step can still come to. */
const forgiving = new Set<Condition>(["held", "settled"]);

function judgeRanks(condition: Exclude<Condition, "released" | "link-up">, view: ConditionView): Verdict {
  const ranks = livingRanks(view);
  const late: string[] = [];
  for (const rank of ranks) {
    const report = reportOf(view.roster, rank);
    const isCurrent = report?.cycle === view.target.cycle && report.step === view.step;
    if (report?.state === "failed" && isCurrent && !forgiving.has(condition))
      return { met: "failed", why: `rank ${rank.rank} on ${rank.vm}: ${words(report)}` };
    if (condition === "quiet" ? quietFor(rank, view) : rankIs(condition, rank, view)) continue;
    late.push(lateness(rank, report, isCurrent, view));
  }
  if (condition === "held" && late.length === 0 && view.target.cards.length > 0) return judgeReleased(view);
  if (late.length === 0) return { met: true };
  return { met: false, late: [...unmet(view), ...late] };
}

/** Meetings of the ranks that lack somebody, before the ranks themselves: one that waits there only shows that it is not done. */
function unmet({ board, target, refused }: ConditionView): string[] {
  const notTaken = [...(refused ?? [])].map(([vm, why]) => `${vm}: ${plainText(why, 160)}`);
  const lacking = target.jobs.flatMap(({ job }) =>
    board.incomplete(job).map(({ key, missing }) => {
      const shown = missing.length > SHOWN_RANKS ? [...missing.slice(0, SHOWN_RANKS), "…"] : missing;
      return `at "${plainText(key, 32)}" of job ${job} the others wait for rank ${shown.join(", ")}`;
    }),
  );
  return lacking.length === 0 ? [] : [...lacking, ...notTaken];
}

/** A rank that has left the card has seen its job's quiet set, or needed none. */
function quietFor(rank: TargetRank, view: ConditionView): boolean {
  return (
    view.board.quietComplete(rank.job) ||
    rankIs(view.target.strategy === "live" ? "on-tcp" : "parked", rank, view)
  );
}

function words(report: RankReport): string {
  const error = report.error === 0 ? "" : ` (error ${report.error})`;
  return `${plainText(report.detail) || "the step failed"}${error}`;
}

/** A rank that is waited for, as a sentence. */
export function lateness(
  rank: TargetRank,
  report: RankReport | undefined,
  isCurrent: boolean,
  view: ConditionView,
): string {
  const who = `rank ${rank.rank} on ${rank.vm}`;
  const silent = view.silent(rank.vm);
  if (silent !== undefined) return `${who}: the agent of ${rank.vm} does not answer (${silent})`;
  if (report === undefined) return `${who} is not reported by its agent`;
  const pid = ` (pid ${report.pid})`;
  if (!isCurrent && report.state === "running")
    return `${who}${pid} is late: it has not begun to leave since the order (it computes, or waits for tcp or for openib)`;
  if (isCurrent && report.state === "running")
    return `${who}${pid} runs over ${report.route}, epoch ${report.epoch}`;
  const detail = report.detail === "" ? "" : `: ${plainText(report.detail)}`;
  return `${who}${pid} is ${report.state}${detail}`;
}

function judgeReleased(view: ConditionView): Verdict {
  const { vm } = view.target;
  const state = view.roster.state(vm);
  const silent = view.silent(vm);
  if (silent !== undefined || state === undefined)
    return { met: false, late: [`the agent of ${vm} does not answer (${silent ?? "no state yet"})`] };
  if (state.released) return { met: true };
  const holders = state.holders.map(
    (h) => `pid ${h.pid} (${plainText(h.command, 40)}) ${plainText(h.what, 60)}`,
  );
  return {
    met: false,
    late: [`the card of ${vm} is still held by ${holders.join(", ") || "someone the agent cannot name"}`],
  };
}

function judgeLinkUp(view: ConditionView): Verdict {
  const { vm } = view.target;
  const state = view.roster.state(vm);
  const silent = view.silent(vm);
  if (silent !== undefined || state === undefined)
    return { met: false, late: [`the agent of ${vm} does not answer (${silent ?? "no state yet"})`] };
  const up = state.devices.filter(isUp);
  const late: string[] = [];
  let anonymous = 0;
  for (const [tag, card] of view.expected) {
    const { mac, guid } = card.identity;
    if (mac === undefined && guid === undefined) anonymous++;
    else if (!up.some((d) => isCard(d, card))) {
      const there = state.devices.find((d) => isCard(d, card));
      late.push(`${tag} (${mac ?? guid}) ${there === undefined ? "is not in the guest" : describe(there)}`);
    }
  }
  // Without an identity only their number tells: as many ports up as there were before the detach.
  if (anonymous > 0 && up.length < view.activeBefore)
    late.push(
      `${up.length} of ${view.activeBefore} ports are active: ${state.devices.map(describe).join(", ")}`,
    );
  if (late.length === 0) return { met: true };
  if (state.hookError !== "") late.push(`the post-attach hook said: ${plainText(state.hookError)}`);
  return { met: false, late };
}

export function isUp(device: DeviceReport): boolean {
  return device.port === "ACTIVE" && device.gid !== "";
}

function describe(device: DeviceReport): string {
  const port = device.port === "" ? "without a port" : `port ${plainText(device.port)}`;
  return `${plainText(device.verbs || device.netdev || device.pci)} is ${port}${device.gid === "" ? ", no GID" : ""}`;
}

/** Whether a guest's device is that card: by MAC, or by the GUID that ends its GID. */
export function isCard(device: DeviceReport, card: Card): boolean {
  const { mac, guid } = card.identity;
  const hex = (text: string) => text.toLowerCase().replace(/[^0-9a-f]/g, "");
  if (mac !== undefined) return hex(device.mac) === hex(mac);
  if (guid !== undefined) return hexGid(device.gid).endsWith(hex(guid));
  return false;
}

/** A GID as 32 hex digits, also when the zeros of its groups were left out. */
function hexGid(gid: string): string {
  const [head = "", tail] = gid.toLowerCase().split("::");
  const groups = (part: string) => (part === "" ? [] : part.split(":"));
  const left = groups(head);
  const right = groups(tail ?? "");
  const zeros =
    tail === undefined ? [] : Array.from({ length: Math.max(0, 8 - left.length - right.length) }, () => "0");
  return [...left, ...zeros, ...right].map((g) => g.padStart(4, "0")).join("");
}
