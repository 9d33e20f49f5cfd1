import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  type CycleEvent,
  type CycleShape,
  type CycleState,
  type Effect,
  initialState,
  type Phase,
  reduce,
} from "./cycle.js";

const full: CycleShape = {
  vm: "vm1",
  from: "h1",
  to: "h3",
  hasCards: true,
  getsCards: true,
  hasJobs: true,
  strategy: "park",
  perPeer: false,
  leave: true,
  comeBack: true,
};
const forward: Phase[] = [
  "prepare",
  "drain",
  "tear-down",
  "wait",
  "detach",
  "pre-copy",
  "switch-over",
  "attach",
  "link-up",
  "re-init",
  "commit",
];

function name(effect: Effect): string {
  switch (effect.do) {
    case "order":
      return `order ${effect.want} ${effect.step}`;
    case "hold":
    case "release":
      return `${effect.do} ${effect.step}`;
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

/** Runs events from the begin; gives the last state and the effects of each event. */
function play(
  events: CycleEvent[],
  shape = full,
): { state: CycleState; effects: string[][]; phases: Phase[] } {
  let state = initialState(shape);
  const effects: string[][] = [];
  const phases: Phase[] = [];
  for (const event of events) {
    const step = reduce(state, event);
    state = step.state;
    effects.push(step.effects.map(name));
    phases.push(state.phase);
  }
  return { state, effects, phases };
}

const ok: CycleEvent = { type: "ok" };
const begin: CycleEvent = { type: "begin" };
const fail: CycleEvent = { type: "fail", cause: "it broke" };
const abort: CycleEvent = { type: "abort", cause: "operator" };
const deadline: CycleEvent = { type: "deadline", cause: "too late" };

/** Events that lead into a forward phase. */
function into(phase: Phase): CycleEvent[] {
  return [begin, ...Array<CycleEvent>(forward.indexOf(phase)).fill(ok)];
}

/** Answers ok to everything until the end. */
function finish(events: CycleEvent[], shape = full): { phases: Phase[]; last: Effect | undefined } {
  let { state } = play(events, shape);
  const phases: Phase[] = [];
  let last: Effect | undefined;
  while (state.phase !== "ended") {
    phases.push(state.phase);
    const step = reduce(state, ok);
    state = step.state;
    last = step.effects.at(-1);
  }
  return { phases, last };
}

const restore: Phase[] = ["undo:attach-source", "undo:link-up", "undo:re-init"];
const comeBack: Phase[] = [
  "undo:detach-destination",
  "undo:relaunch-source",
  "undo:return",
  "undo:resume-source",
  "undo:end-destination",
  ...restore,
];
const endThenRestore: Phase[] = ["undo:end-destination", ...restore];
const regain: Phase[] = ["undo:end-destination", "undo:resume-source", ...restore];
const unpark: Phase[] = ["undo:re-init", "undo:end-destination"];

/** The way back of each phase when its work failed, and when it was done before it could be stopped. */
const ways: Record<string, { failed: Phase[]; completed: Phase[] | "at once" }> = {
  prepare: { failed: ["undo:end-destination"], completed: ["undo:end-destination"] },
  drain: { failed: unpark, completed: "at once" },
  "tear-down": { failed: unpark, completed: "at once" },
  wait: { failed: unpark, completed: "at once" },
  detach: { failed: endThenRestore, completed: endThenRestore },
  "pre-copy": { failed: endThenRestore, completed: regain },
  "switch-over": { failed: regain, completed: comeBack },
  attach: { failed: comeBack, completed: comeBack },
  "link-up": { failed: comeBack, completed: "at once" },
  "re-init": { failed: ["undo:park", ...comeBack], completed: "at once" },
};

describe("the undisturbed way", () => {
  it("has exactly these effects", () => {
    expect(play([begin, ...Array<CycleEvent>(11).fill(ok)]).effects).toEqual([
      ["arm prepare", "launch-destination"],
      ["arm park", "order park 1", "watch quiet"],
      ["watch parked"],
      ["watch released"],
      ["arm detach", "detach-source"],
      ["arm migrate", "migrate"],
      ["arm attach", "resume-destination"],
      ["arm attach", "attach-destination"],
      ["arm linkUp", "watch link-up"],
      ["arm resume", "order run-openib 2", "watch running"],
      ["arm prepare", "commit"],
      ["end done"],
    ]);
  });

  it("skips what a VM without jobs or cards does not need", () => {
    const phases = (shape: Partial<CycleShape>) =>
      play([begin, ...Array<CycleEvent>(11).fill(ok)], { ...full, ...shape }).phases.filter(
        (p) => p !== "ended",
      );
    expect(phases({ hasJobs: false })).toEqual([
      "prepare",
      "wait",
      "detach",
      "pre-copy",
      "switch-over",
      "attach",
      "link-up",
      "commit",
    ]);
    expect(phases({ hasJobs: false, hasCards: false, getsCards: false })).toEqual([
      "prepare",
      "pre-copy",
      "switch-over",
      "commit",
    ]);
    expect(phases({ hasCards: false, getsCards: false })).toEqual([
      "prepare",
      "drain",
      "tear-down",
      "pre-copy",
      "switch-over",
      "re-init",
      "commit",
    ]);
  });
});

describe("the ways back", () => {
  for (const [phase, { failed, completed }] of Object.entries(ways)) {
    it(`${phase} fails`, () => {
      const { phases, last } = finish([...into(phase as Phase), fail]);
      expect(phases).toEqual(failed);
      expect(last).toMatchObject({
        do: "end",
        outcome: "rolled-back",
        message: expect.stringMatching(/^it broke/),
      });
    });

    for (const [what, event] of [
      ["is aborted", abort],
      ["runs out of time", deadline],
    ] as const)
      it(`${phase} ${what}`, () => {
        const cause = event === abort ? "operator" : "too late";
        if (completed === "at once") {
          expect(finish([...into(phase as Phase), event]).phases).toEqual(failed);
          return;
        }
        // The op is told to stop, and its end is waited for, whichever it is.
        const stopped = play([...into(phase as Phase), event]);
        expect(stopped.effects.at(-1)).toEqual(["cancel"]);
        expect(stopped.state.phase).toBe(phase);
        const afterFail = finish([
          ...into(phase as Phase),
          event,
          { type: "fail", cause: `detail: ${cause}` },
        ]);
        expect(afterFail.phases).toEqual(failed);
        expect(afterFail.last).toMatchObject({
          outcome: "rolled-back",
          message: expect.stringContaining(`detail: ${cause}`),
        });
        expect(finish([...into(phase as Phase), event, ok]).phases).toEqual(completed);
        // Being told twice changes nothing.
        expect(play([...into(phase as Phase), event, abort, deadline]).effects.at(-1)).toEqual([]);
      });
  }

  it("a rank lost before the move sends the cycle back, after it only spoils its job", () => {
    const lost: CycleEvent = { type: "lost", cause: "rank 3 died" };
    expect(finish([...into("drain"), lost]).phases).toEqual(unpark);
    expect(play([...into("pre-copy"), lost]).effects.at(-1)).toEqual(["cancel"]);
    const { phases, last } = finish([...into("link-up"), lost]);
    expect(phases).toEqual(["link-up", "re-init", "commit"]);
    expect(last).toMatchObject({
      outcome: "needs-operator",
      unfinished: false,
      message: expect.stringContaining("rank 3 died"),
    });
  });

  it("a failed re-init is tried once more in each direction", () => {
    const failedStep: CycleEvent = { type: "step-failed", cause: "no port" };
    const once = play([...into("re-init"), failedStep]);
    expect(once.effects.at(-1)).toEqual(["arm resume", "order run-openib 3", "watch running"]);
    const twice = [...into("re-init"), failedStep, failedStep];
    expect(play(twice).effects.at(-1)).toEqual(["arm park", "order park 4", "watch held"]);
    const atSource = [...twice, ...Array<CycleEvent>(8).fill(ok)];
    expect(play(atSource).state.phase).toBe("undo:re-init");
    expect(play([...atSource, failedStep]).effects.at(-1)).toEqual([
      "arm resume",
      "order run-openib 6",
      "watch running",
    ]);
    expect(play([...atSource, failedStep, failedStep]).effects.at(-1)).toEqual(["end needs-operator"]);
  });

  it("a destination that cannot be ended matters only if the source is to be resumed after it", () => {
    const beside = finish([...into("detach"), fail, { type: "fail", cause: "cannot end it" }]);
    expect(beside.last).toMatchObject({
      outcome: "rolled-back",
      message: expect.stringContaining("also: cannot end it"),
    });
    const twice = play([...into("switch-over"), fail, { type: "fail", cause: "cannot end it" }]);
    expect(twice.effects.at(-1)).toEqual(["end needs-operator"]);
  });

  it("abort is ignored in commit and on the way back", () => {
    expect(play([...into("commit"), abort]).effects.at(-1)).toEqual([]);
    expect(play([...into("detach"), fail, abort]).effects.at(-1)).toEqual([]);
  });

  it("an op nobody can stop ends with a person", () => {
    const { state, effects } = play([
      ...into("pre-copy"),
      abort,
      { type: "fail", cause: "did not stop", unsettled: true },
    ]);
    expect(state.phase).toBe("ended");
    expect(effects.at(-1)).toEqual(["end needs-operator"]);
  });
});

describe("live", () => {
  const live: CycleShape = { ...full, strategy: "live" };
  const settle: Phase[] = ["undo:settle", "undo:re-init", "undo:end-destination"];
  const liveWays: Record<string, { failed: Phase[]; completed: Phase[] | "at once" }> = {
    ...ways,
    drain: { failed: settle, completed: "at once" },
    "tear-down": { failed: settle, completed: "at once" },
    "re-init": { failed: ["undo:settle", "undo:park", ...comeBack], completed: "at once" },
  };
  const failedStep: CycleEvent = { type: "step-failed", cause: "no port" };

  it("has exactly these effects, and never parks", () => {
    const { effects } = play([begin, ...Array<CycleEvent>(11).fill(ok)], live);
    expect(effects).toEqual([
      ["arm prepare", "launch-destination"],
      ["arm park", "order run-tcp 1", "watch quiet"],
      ["watch on-tcp"],
      ["watch released"],
      ["arm detach", "detach-source"],
      ["arm migrate", "migrate"],
      ["arm attach", "resume-destination"],
      ["arm attach", "attach-destination"],
      ["arm linkUp", "watch link-up"],
      ["arm resume", "order run-openib 2", "watch running"],
      ["arm prepare", "commit"],
      ["end done"],
    ]);
  });

  for (const [phase, { failed, completed }] of Object.entries(liveWays))
    for (const [what, event] of [
      ["fails", fail],
      ["is aborted", abort],
      ["runs out of time", deadline],
    ] as const)
      it(`${phase} ${what}`, () => {
        const stopped = [...into(phase as Phase), event];
        const way = (events: CycleEvent[]) => finish(events, live);
        const expectBack = (found: ReturnType<typeof finish>, phases: Phase[]) => {
          expect(found.phases).toEqual(phases);
          expect(found.last).toMatchObject({ do: "end", outcome: "rolled-back" });
        };
        if (event === fail || completed === "at once") return expectBack(way(stopped), failed);
        expect(play(stopped, live).effects.at(-1)).toEqual(["cancel"]);
        expectBack(way([...stopped, fail]), failed);
        expectBack(way([...stopped, ok]), completed);
      });

  it("runs on over tcp when openib does not come back anywhere: no work is left for abort", () => {
    const events = [...into("re-init"), failedStep, failedStep];
    const atSource = [...events, ...Array<CycleEvent>(9).fill(ok)];
    expect(play(atSource, live).state.phase).toBe("undo:re-init");
    const { phases, last } = finish([...atSource, failedStep, failedStep], live);
    expect(phases).toEqual(["undo:park"]);
    expect(last).toMatchObject({
      outcome: "needs-operator",
      unfinished: false,
      message: expect.stringMatching(/^vm1 is on h1 and its job runs over tcp.*symvirt recover vm1/),
    });
  });

  it("goes to a host without a card and stays on tcp; from there it needs no leave", () => {
    const bare = finish([begin], { ...live, getsCards: false, comeBack: false });
    expect(bare.phases).toEqual([
      ...["prepare", "drain", "tear-down", "wait", "detach", "pre-copy", "switch-over", "commit"],
    ]);
    expect(bare.last).toMatchObject({ outcome: "done", message: expect.stringContaining("over tcp") });
    const further = finish([begin], { ...live, hasCards: false, leave: false });
    expect(further.phases).toEqual([
      ...["prepare", "pre-copy", "switch-over", "attach", "link-up", "re-init", "commit"],
    ]);
  });

  it("speaks of the VM's own ranks where only those change all their routes", () => {
    const perPeer: CycleShape = { ...live, perPeer: true };
    const said = (events: CycleEvent[], shape: Partial<CycleShape> = {}) =>
      finish(events, { ...perPeer, ...shape }).last;
    expect(said([begin], { getsCards: false, comeBack: false })).toMatchObject({
      outcome: "done",
      message: expect.stringMatching(
        /^vm1 runs on h3, its ranks over tcp with every peer: `symvirt recover vm1`/,
      ),
    });
    expect(said([begin])).toMatchObject({ message: "vm1 runs on h3 with its card, its ranks over openib" });
    const inPlace = { to: "h1", hasCards: false, leave: false };
    expect(said([begin], inPlace)).toMatchObject({ message: "the ranks on vm1 run over openib again" });
    expect(said([begin, ok, ok, failedStep, failedStep], inPlace)).toMatchObject({
      outcome: "rolled-back",
      message: "no port; the ranks on vm1 run over tcp as before",
    });
    const nowhere = [...into("re-init"), failedStep, failedStep, ...Array<CycleEvent>(9).fill(ok)];
    expect(said([...nowhere, failedStep, failedStep])).toMatchObject({
      outcome: "needs-operator",
      message: expect.stringMatching(/^vm1 is on h1 and its ranks run over tcp there: no port/),
    });
  });

  it("recovers in place, and takes the card out again if that fails", () => {
    const inPlace: CycleShape = { ...live, to: "h1", hasCards: false, leave: false };
    expect(finish([begin], inPlace)).toMatchObject({
      phases: ["attach", "link-up", "re-init", "commit"],
      last: { outcome: "done" },
    });
    expect(finish([begin, ok, ok, failedStep, failedStep], inPlace)).toMatchObject({
      phases: ["undo:settle", "undo:park", "undo:detach-destination"],
      last: { outcome: "rolled-back", message: expect.stringContaining("over tcp as before") },
    });
    expect(finish([begin, ok, deadline], inPlace).phases).toEqual(["undo:detach-destination"]);
  });
});

describe("cooperative convergence", () => {
  const live: CycleShape = { ...full, strategy: "live" };
  const hold: CycleEvent = { type: "hold", cause: "pre-copy had not ended after 5 s" };
  const effectsOf = (events: CycleEvent[], shape = live) => play(events, shape).effects.at(-1);
  const inPreCopy = [...into("pre-copy"), hold];

  it("holds the ranks of the moving VM once, and lets them go with the switch-over", () => {
    const { state, effects } = play([...inPreCopy, hold, ok], live);
    expect(effects.slice(-3)).toEqual([["hold 2"], [], ["release 3", "arm attach", "resume-destination"]]);
    expect(state).toMatchObject({ phase: "switch-over", place: "moved", holding: false });
    const { phases, last } = finish([...inPreCopy, ok], live);
    expect(phases).toEqual(["switch-over", "attach", "link-up", "re-init", "commit"]);
    expect(last).toMatchObject({ outcome: "done" });
  });

  it("does not wait for them: pre-copy may end at any time", () => {
    expect(play([...into("pre-copy"), ok, hold], live).effects.at(-1)).toEqual([]);
  });

  for (const [what, event, effects] of [
    ["fails", fail, ["release 3", "arm prepare", "end-destination"]],
    ["is aborted", abort, ["release 3", "cancel"]],
    ["runs out of time", deadline, ["release 3", "cancel"]],
    ["loses a rank", { type: "lost", cause: "rank 3 died" }, ["release 3", "cancel"]],
  ] as const)
    it(`lets them go when pre-copy ${what}`, () => {
      expect(effectsOf([...inPreCopy, event])).toEqual(effects);
      expect(effectsOf([...inPreCopy, event, hold])).toEqual([]);
    });

  it("lets them go once only, also when the op does not stop", () => {
    const unsettled: CycleEvent = { type: "fail", cause: "did not stop", unsettled: true };
    expect(effectsOf([...inPreCopy, unsettled])).toEqual(["release 3", "end needs-operator"]);
    expect(effectsOf([...inPreCopy, abort, unsettled])).toEqual(["end needs-operator"]);
  });

  it("holds them for the way back as well", () => {
    const back = [...into("link-up"), deadline, ok, ok];
    expect(play(back, live).state.phase).toBe("undo:return");
    expect(effectsOf([...back, hold])).toEqual(["hold 2"]);
    expect(effectsOf([...back, hold, ok])).toEqual(["release 3", "arm attach", "resume-source"]);
    expect(effectsOf([...back, hold, fail])).toEqual(["release 3", "end needs-operator"]);
  });

  it.each(forward.filter((p) => p !== "pre-copy"))("means nothing in phase %s", (phase) => {
    expect(effectsOf([...into(phase), hold])).toEqual([]);
  });

  it("means nothing where ranks are parked, or there are none", () => {
    expect(effectsOf(inPreCopy, full)).toEqual([]);
    const without = [begin, ok, ok, ok, hold];
    expect(play(without, { ...live, hasJobs: false }).state.phase).toBe("pre-copy");
    expect(effectsOf(without, { ...live, hasJobs: false })).toEqual([]);
  });

  it("a controller that takes over lets them go first, on either side", () => {
    const first = (place: "source" | "destination") =>
      reduce(initialState(live, { step: 7, held: true }), { type: "recover", place, reached: "detach" });
    expect(first("source").effects.map(name)).toEqual(["release 8", "arm prepare", "end-destination"]);
    expect(first("destination").effects.map(name)).toEqual(["release 8", "arm attach", "resume-destination"]);
  });
});

describe("a controller that takes over", () => {
  const recover = (place: "source" | "destination", reached: "prepare" | "park" | "detach") =>
    finish([{ type: "recover", place, reached }]);

  it("rolls back on the source as far as the cycle had come", () => {
    expect(recover("source", "prepare").phases).toEqual(["undo:end-destination"]);
    expect(recover("source", "park").phases).toEqual(unpark);
    expect(recover("source", "detach").phases).toEqual(endThenRestore);
    expect(recover("source", "detach").last).toMatchObject({ outcome: "rolled-back" });
  });

  it("finishes forward at the destination, and goes back from there if that fails", () => {
    expect(recover("destination", "detach")).toMatchObject({
      phases: ["switch-over", "attach", "link-up", "re-init", "commit"],
      last: { outcome: "done" },
    });
    const events: CycleEvent[] = [{ type: "recover", place: "destination", reached: "detach" }, fail];
    // Its ranks may have come to use the card there: they leave it first.
    expect(finish(events).phases).toEqual(["undo:park", ...comeBack]);
    const late: CycleEvent[] = [{ type: "recover", place: "destination", reached: "detach" }, ok, ok, fail];
    expect(finish(late).phases).toEqual(["undo:park", ...comeBack]);
  });
});

describe("any order of events", () => {
  const anyEvent = fc.oneof(
    fc.constant(ok),
    fc.constant(fail),
    fc.constant(abort),
    fc.constant(deadline),
    fc.constant<CycleEvent>({ type: "lost", cause: "rank died" }),
    fc.constant<CycleEvent>({ type: "step-failed", cause: "no port" }),
    fc.constant<CycleEvent>({ type: "hold", cause: "pre-copy does not end" }),
    fc.constant<CycleEvent>({ type: "fail", cause: "did not stop", unsettled: true }),
    fc.constant(begin),
  );
  const anyShape = fc
    .record({
      hasCards: fc.boolean(),
      getsCards: fc.boolean(),
      hasJobs: fc.boolean(),
      strategy: fc.constantFrom("live" as const, "park" as const),
      perPeer: fc.boolean(),
      leave: fc.boolean(),
      comeBack: fc.boolean(),
      to: fc.constantFrom("h1", "h3"),
    })
    .map((s) => ({ ...full, ...s }));
  const anyStart = fc.oneof(
    fc.constant(begin),
    fc.record({
      type: fc.constant("recover" as const),
      place: fc.constantFrom("source" as const, "destination" as const),
      reached: fc.constantFrom("prepare" as const, "park" as const, "detach" as const),
    }),
  );

  it("ends in one of three outcomes, with one end, growing steps, and one op at a time", () => {
    fc.assert(
      fc.property(
        anyShape,
        anyStart,
        fc.boolean(),
        fc.array(anyEvent, { maxLength: 60 }),
        (shape, start, wasHeld, events) => {
          const takenOver = shape.hasJobs && shape.strategy === "live" && start.type === "recover";
          let state = initialState(shape, { step: 0, held: takenOver && wasHeld });
          let ends = 0;
          let step = 0;
          let running = false;
          let held = takenOver && wasHeld;
          const world = { destination: "none", source: "running" };
          const take = (event: CycleEvent) => {
            // An op answers once; conditions and ops answer only while they are asked.
            const answers = event.type === "ok" || event.type === "fail";
            if (answers) running = false;
            const result = reduce(state, event);
            for (const effect of result.effects) {
              if (effect.do === "end") {
                ends++;
                expect(effect.message.length).toBeGreaterThan(10);
                if (effect.outcome === "rolled-back") expect(result.state.place).toBe("source");
                if (effect.outcome === "done") expect(result.state.place).not.toBe("moved");
                // No end leaves ranks held: of needs-operator either, as nobody may come to call `abort`.
                expect(held).toBe(false);
              } else if (effect.do === "order" || effect.do === "hold" || effect.do === "release") {
                expect(effect.step).toBe(step + 1);
                step = effect.step;
                if (effect.do !== "order") expect(held).toBe(effect.do === "release");
                if (effect.do === "hold") {
                  expect(shape).toMatchObject({ strategy: "live", hasJobs: true });
                  expect(["pre-copy", "undo:return"]).toContain(state.phase);
                }
                // All ranks are never ordered while some are held for a copy that goes on.
                if (effect.do === "order") expect(held).toBe(false);
                held = effect.do === "hold";
              } else if (effect.do === "op") {
                expect(running).toBe(false);
                running = true;
                // A source is resumed "even if moved" only when the destination has been ended or left.
                if (effect.op === "resume-source") expect(["ended", "left"]).toContain(world.destination);
                if (effect.op === "end-destination") world.destination = "ended";
                if (effect.op === "return") world.destination = "left";
              }
            }
            state = result.state;
          };
          take(start);
          for (const event of events) take(event);
          for (let i = 0; i < 40 && state.phase !== "ended"; i++) take(ok);
          expect(state.phase).toBe("ended");
          expect(ends).toBe(1);
          expect(reduce(state, abort)).toEqual({ state, effects: [] });
        },
      ),
      { numRuns: 2000 },
    );
  });
});
