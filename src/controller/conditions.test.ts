/** What a live cycle waits for, rank by rank: who changes all routes, who only some, who is away. */
import { describe, expect, it } from "vitest";
import type { RankReport } from "../protocol/messages.js";
import { Board } from "./board.js";
import { type ConditionView, judge } from "./conditions.js";
import type { Condition } from "./cycle.js";
import { Roster } from "./roster.js";
import type { CycleTarget } from "./state/journal.js";

const none = { sentFragments: 0, receivedFragments: 0, sentBytes: 0, receivedBytes: 0 };

interface Scene {
  /** Ranks of vm1: change all routes. The others change those to them only. */
  mover?: Partial<RankReport>;
  stayer?: Partial<RankReport>;
  /** Its VM is away from an earlier cycle. */
  away?: Partial<RankReport>;
  whole?: boolean;
  tornDown?: boolean;
}

/** Rank 0 on vm1 moves, rank 1 on vm2 stays, rank 2 on vm3 has been away before. Epochs were 1 at the begin. */
function view({ mover, stayer, away, whole = false, tornDown = true }: Scene): ConditionView {
  const target: CycleTarget = {
    ...{
      cycle: 5,
      vm: "vm1",
      from: "h1",
      to: "h4",
      cards: [],
      strategy: "live",
      leave: true,
      comeBack: true,
    },
    jobs: [
      {
        ...{ job: "j", worldSize: 3, ...(whole ? {} : { moving: [0] }) },
        ranks: [0, 1, 2].map((rank) => ({
          ...{ rank, vm: `vm${rank + 1}`, epoch: 1, tcpOnly: false, away: rank === 2 },
        })),
      },
    ],
  };
  const roster = new Roster();
  for (const [rank, change] of [mover, stayer, away].entries())
    roster.update(`vm${rank + 1}`, {
      ...{ type: "state", session: "0123456789abcdef", seq: 1, answer: 0, devices: [], released: false },
      ...{ holders: [], hookError: "" },
      jobs: [
        {
          ...{ job: "j", uid: 1, worldSize: 3 },
          ranks: [
            {
              ...{ rank, pid: 1, state: "running", cycle: 5, step: 2, error: 0, detail: "", tcpOnly: false },
              ...{ openDescriptors: rank === 1 ? 3 : 0, registrations: 0, windows: 0, wholeOnly: false },
              timings: { late: 0, drain: 0, teardown: 0, held: 0, load: 0, connect: 0 },
              ...{ route: rank === 1 ? "openib" : "tcp", epoch: 1, openib: none, tcp: none, ...change },
            },
          ],
        },
      ],
    });
  const ignore = () => undefined;
  const board = new Board({
    ...{ cycle: 5, jobs: target.jobs, mayPost: () => true },
    ...{ onQuiet: ignore, onComplete: ignore, onOverflow: ignore },
  });
  if (tornDown) board.rememberQuiet("j");
  return {
    ...{ target, step: 2, roster, board, lost: new Set<string>(), expected: new Map(), activeBefore: 0 },
    silent: () => undefined,
  };
}

const back = { route: "openib", epoch: 2, openDescriptors: 3 } as const;
const late = (rank: number) => [expect.stringMatching(new RegExp(`^rank ${rank} on`)) as string];

describe("a live cycle of one VM's ranks", () => {
  it.each<[string, Condition, Scene, string[] | true]>([
    ["left", "on-tcp", {}, true],
    ["left, taken up again", "held", {}, true],
    ["the mover holds the card", "on-tcp", { mover: { openDescriptors: 1 } }, late(0)],
    ["the mover is over openib", "on-tcp", { mover: { route: "openib" } }, late(0)],
    ["the mover closes", "on-tcp", { mover: { state: "closing" } }, late(0)],
    ["the stayer has not heard of it", "on-tcp", { stayer: { step: 1 } }, late(1)],
    ["the stayer of an older cycle", "on-tcp", { stayer: { cycle: 4 } }, late(1)],
    ["the one away has not heard of it", "on-tcp", { away: { step: 1 } }, late(2)],
    ["back", "running", { mover: back }, true],
    ["the mover is not back", "running", {}, late(0)],
    ["the mover is back in its old epoch", "running", { mover: { ...back, epoch: 1 } }, late(0)],
    ["taken back before the quiet set", "running", { mover: { ...back, epoch: 1 }, tornDown: false }, true],
    ["the stayer still connects", "running", { mover: back, stayer: { state: "opening" } }, late(1)],
    ["the stayer lost openib", "running", { mover: back, stayer: { route: "tcp" } }, late(1)],
    ["the one away has not heard of it", "running", { mover: back, away: { step: 1 } }, late(2)],
  ])("%s: %s", (_, condition, scene, verdict) => {
    const expected = verdict === true ? { met: true } : { met: false, late: verdict };
    expect(judge(condition, view(scene))).toEqual(expected);
  });

  it("says at which meeting the others wait, and for whom", () => {
    const scene = view({ mover: { state: "opening" } });
    scene.board.open(2);
    const post = { type: "post", session: "0123456789abcdef", job: "j", cycle: 5, step: 2 } as const;
    for (const rank of [0, 2])
      scene.board.post("vm1", { ...post, key: "handles", rank, offset: 0, total: 0, data: "" });
    for (const rank of [0, 1, 2])
      scene.board.post("vm1", { ...post, key: "blob", rank, offset: 0, total: 0, data: "" });
    expect(judge("running", scene)).toMatchObject({
      met: false,
      late: [`at "handles" of job j the others wait for rank 1`, expect.stringMatching(/^rank 0 on vm1/)],
    });
  });

  it("a step that fails in a stayer fails the way back", () => {
    const scene = { mover: back, stayer: { state: "failed", error: -19, detail: "no port" } } as const;
    expect(judge("running", view(scene))).toEqual({
      met: "failed",
      why: "rank 1 on vm2: no port (error -19)",
    });
  });
});

describe("a live cycle of the whole job", () => {
  const all = { mover: back, stayer: back, away: back };
  it.each<[string, Condition, Scene, string[] | true]>([
    ["the second rank keeps openib", "on-tcp", { whole: true }, late(1)],
    ["left", "on-tcp", { whole: true, stayer: { route: "tcp", openDescriptors: 0 } }, true],
    ["back", "running", { whole: true, ...all }, true],
    ["back, but one is away still", "running", { whole: true, ...all, away: {} }, late(2)],
    ["back, but one in its old epoch", "running", { whole: true, ...all, stayer: {} }, late(1)],
    [
      ...(["taken back before the quiet set: who was away is so", "running"] as const),
      { whole: true, tornDown: false, mover: { ...back, epoch: 1 } },
      true,
    ],
  ])("%s: %s", (_, condition, scene, verdict) => {
    const expected = verdict === true ? { met: true } : { met: false, late: verdict };
    expect(judge(condition, view(scene))).toEqual(expected);
  });
});
