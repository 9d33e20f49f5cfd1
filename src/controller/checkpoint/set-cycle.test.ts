import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  initialSet,
  reduceSet,
  type SetEffect,
  type SetEvent,
  type SetPhase,
  type SetShape,
  type SetState,
} from "./set-cycle.js";

const shape = (more: Partial<SetShape> = {}): SetShape => ({
  ...{ verb: "checkpoint", checkpoint: "c1", vms: ["vm1", "vm2"], hasCards: true, hasJobs: true },
  ...{ strategy: "park", ...more },
});

interface Walk {
  state: SetState;
  phases: SetPhase[];
  effects: SetEffect[];
}

function walk(start: SetState, events: readonly SetEvent[]): Walk {
  const seen: Walk = { state: start, phases: [], effects: [] };
  for (const event of events) {
    const { state, effects } = reduceSet(seen.state, event);
    if (state.phase !== seen.state.phase) seen.phases.push(state.phase);
    seen.state = state;
    seen.effects.push(...effects);
  }
  return seen;
}

const ok: SetEvent = { type: "ok" };
const oks = (n: number): SetEvent[] => Array.from({ length: n }, () => ok);
const endOf = ({ effects }: Walk) => effects.find((e) => e.do === "end");

const checkpointPhases: SetPhase[] = [
  ...(["drain", "tear-down", "wait", "detach", "hold", "cut", "save", "keep"] as const),
  ...(["attach", "link-up", "re-init", "ended"] as const),
];

describe("a checkpoint", () => {
  it("goes through all its phases; without cards and jobs through those of the capture", () => {
    const all = walk(initialSet(shape()), [{ type: "begin" }, ...oks(11)]);
    expect(all.phases).toEqual(checkpointPhases);
    expect(endOf(all)).toMatchObject({ outcome: "done", unfinished: false });
    const bare = walk(initialSet(shape({ hasCards: false, hasJobs: false })), [{ type: "begin" }, ...oks(4)]);
    expect(bare.phases).toEqual(["hold", "cut", "save", "keep", "ended"]);
  });

  it.each([
    ["drain", ["undo:re-init"]],
    ["tear-down", ["undo:re-init"]],
    ["wait", ["undo:re-init"]],
    ["detach", ["undo:attach", "undo:link-up", "undo:re-init"]],
    ["hold", ["undo:release", "undo:attach", "undo:link-up", "undo:re-init"]],
    ["cut", ["undo:release", "undo:attach", "undo:link-up", "undo:re-init"]],
    ["save", ["undo:release", "undo:attach", "undo:link-up", "undo:re-init"]],
    ["keep", ["undo:release", "undo:attach", "undo:link-up", "undo:re-init"]],
  ] as [SetPhase, SetPhase[]][])("that fails in %s goes back by %j", (phase, way) => {
    const before = oks(checkpointPhases.indexOf(phase));
    const fault: SetEvent =
      phase === "drain" || phase === "tear-down" || phase === "wait"
        ? { type: "deadline", cause: "too late" }
        : { type: "fail", cause: "broken" };
    const walked = walk(initialSet(shape()), [{ type: "begin" }, ...before, fault, ...oks(way.length)]);
    expect(walked.phases.slice(before.length + 1)).toEqual([...way, "ended"]);
    expect(endOf(walked)).toMatchObject({ outcome: "rolled-back", unfinished: false });
    const live = walk(initialSet(shape({ strategy: "live" })), [{ type: "begin" }, ...before, fault]);
    if (phase === "drain") expect(live.phases.at(-1)).toBe("undo:settle");
  });

  it("that is kept is not taken back: its cards are tried again, and its end is done", () => {
    const walked = walk(initialSet(shape()), [
      ...[{ type: "begin" } as const, ...oks(8), { type: "abort", cause: "too late for that" } as const],
      ...[{ type: "fail", cause: "sticky port" } as const, ...oks(3)],
    ]);
    expect(walked.phases.slice(8)).toEqual([
      "attach",
      "undo:attach",
      "undo:link-up",
      "undo:re-init",
      "ended",
    ]);
    expect(endOf(walked)).toMatchObject({ outcome: "done", message: expect.stringContaining("sticky port") });
  });

  it("stops the work of a phase before it goes back, and takes its word for what was done", () => {
    const walked = walk(initialSet(shape()), [
      { type: "begin" },
      ...oks(5),
      { type: "abort", cause: "stop" },
    ]);
    expect(walked.state.phase).toBe("cut");
    expect(walked.effects.at(-1)).toEqual({ do: "cancel" });
    expect(walk(walked.state, [ok]).phases).toEqual(["undo:release"]);
    const late = walk(walked.state, [{ type: "fail", cause: "it hangs", unsettled: true }]);
    expect(endOf(late)).toMatchObject({ outcome: "needs-operator", unfinished: true });
  });

  it("goes back for a rank that dies before the cut, and says so of one that dies later", () => {
    const lost: SetEvent = { type: "lost", cause: "rank 3 died" };
    const early = walk(initialSet(shape()), [{ type: "begin" }, lost]);
    expect(early.state.phase).toBe("undo:re-init");
    const late = walk(initialSet(shape()), [{ type: "begin" }, ...oks(6), lost, ...oks(5)]);
    expect(endOf(late)).toMatchObject({
      outcome: "needs-operator",
      message: expect.stringContaining("rank 3 died"),
    });
  });
});

describe("a restart", () => {
  const restart = shape({ verb: "restart" });
  const phases: SetPhase[] = ["load", "resume", "join", "attach", "link-up", "re-init", "place"];

  it("goes through all its phases, and from each ends what it has started", () => {
    expect(walk(initialSet(restart), [{ type: "begin" }, ...oks(7)]).phases).toEqual([...phases, "ended"]);
    for (const [i, phase] of phases.slice(0, -1).entries()) {
      const fault: SetEvent =
        phase === "link-up" || phase === "re-init"
          ? { type: "deadline", cause: "too late" }
          : { type: "fail", cause: "broken" };
      const walked = walk(initialSet(restart), [{ type: "begin" }, ...oks(i), fault, ok]);
      expect(walked.phases.slice(i + 1)).toEqual(["undo:end", "ended"]);
      expect(endOf(walked)).toMatchObject({
        outcome: "rolled-back",
        message: expect.stringContaining("symvirt restart c1"),
      });
    }
  });

  it("is not taken back once its ranks run: what could not be noted is for a person, and `abort` notes it", () => {
    const lost: SetEvent = { type: "lost", cause: "rank 3 died" };
    const placing = walk(initialSet(restart), [{ type: "begin" }, ...oks(6), lost]);
    expect(placing.state.phase).toBe("place");
    expect(endOf(walk(placing.state, [ok]))).toMatchObject({
      ...{ outcome: "needs-operator", unfinished: false },
      message: expect.stringContaining("rank 3 died: start that job again"),
    });
    const failed = walk(placing.state, [{ type: "fail", cause: "no room" }]);
    expect(endOf(failed)).toMatchObject({
      ...{ outcome: "needs-operator", unfinished: true },
      message: expect.stringMatching(/no room; vm1, vm2 run from checkpoint c1, but .*`symvirt abort`/),
    });
    const recovered = walk(initialSet(restart), [{ type: "recover", reached: "place" }, ok]);
    expect(recovered.phases).toEqual(["place", "ended"]);
    expect(endOf(recovered)).toMatchObject({ outcome: "done", unfinished: false });
  });

  it("tries the re-init once more", () => {
    const failed: SetEvent = { type: "step-failed", cause: "no usable port" };
    const walked = walk(initialSet(restart), [{ type: "begin" }, ...oks(5), failed, failed]);
    expect(walked.phases.slice(5)).toEqual(["re-init", "undo:end"]);
    expect(walked.effects.filter((e) => e.do === "order").map((e) => e.step)).toEqual([1, 2]);
  });
});

it("whatever happens, it ends once, and every order has a step of its own", () => {
  const event = fc.oneof(
    { weight: 6, arbitrary: fc.constant<SetEvent>(ok) },
    fc.record({
      type: fc.constantFrom("fail", "step-failed", "deadline", "abort", "lost"),
      cause: fc.constant("x"),
    }) as fc.Arbitrary<SetEvent>,
  );
  const anyShape = fc.record({
    ...{ verb: fc.constantFrom("checkpoint", "restart"), checkpoint: fc.constant("c1") },
    ...{ vms: fc.constant(["vm1", "vm2"]), hasCards: fc.boolean(), hasJobs: fc.boolean() },
    strategy: fc.constantFrom("park", "live"),
  }) as fc.Arbitrary<SetShape>;
  fc.assert(
    fc.property(anyShape, fc.array(event, { maxLength: 60 }), (s, events) => {
      const walked = walk(initialSet(s), [{ type: "begin" }, ...events, ...oks(40)]);
      expect(walked.state.phase).toBe("ended");
      expect(walked.effects.filter((e) => e.do === "end")).toHaveLength(1);
      const steps = walked.effects.flatMap((e) => (e.do === "order" ? [e.step] : []));
      expect(steps).toEqual([...new Set(steps)].sort((a, b) => a - b));
      // A captured VM never stays with its wires cut, unless a person is told.
      const ops = walked.effects.flatMap((e) => (e.do === "op" ? [e.op] : []));
      const end = endOf(walked);
      if (ops.includes("cut") && end?.do === "end" && end.outcome !== "needs-operator")
        expect(ops.includes("save") || ops.includes("release")).toBe(true);
    }),
  );
});
