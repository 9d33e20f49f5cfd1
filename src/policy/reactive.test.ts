import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  backoffOf,
  initialReactive,
  lacksCheckpoints,
  type ReactiveEffect,
  type ReactiveEvent,
  type ReactiveRules,
  type ReactiveState,
  reduceReactive,
  type Sight,
} from "./reactive.js";

const rules: ReactiveRules = { everyMs: 1000, maxRestarts: 2, backoffMs: 100 };

function sight(vm: string, process: Sight["process"] = "alive", more: Partial<Sight> = {}): Sight {
  return {
    vm,
    host: `h${vm.slice(2)}`,
    process,
    status: process === "alive" ? "running" : "unknown",
    agent: true,
    ...more,
  };
}

class Machine {
  state: ReactiveState = initialReactive(rules, 0);
  effects: ReactiveEffect[] = [];

  say(...events: ReactiveEvent[]): this {
    for (const event of events) {
      const step = reduceReactive(rules, this.state, event);
      this.state = step.state;
      this.effects.push(...step.effects);
    }
    return this;
  }

  look(now: number, ...sights: Sight[]): this {
    return this.say({ type: "look", now, sights });
  }

  take(): ReactiveEffect[] {
    return this.effects.splice(0);
  }
}

const well = [sight("vm1"), sight("vm2")];
const dead = [sight("vm1", "gone"), sight("vm2")];
const watched = () => new Machine().look(1, ...well);
/** vm1 has died and its restart has begun. */
const restarting = () =>
  watched()
    .look(2, ...dead)
    .look(3, ...dead)
    .say({ type: "chosen", now: 4, checkpoint: "c1" }, { type: "fenced" });

const notTaken = (now: number, needsOperator = false): ReactiveEvent => ({
  ...{ type: "checkpoint-failed", now, cause: "the store is full", needsOperator },
});

describe("reactive policy", () => {
  it("says that there are no new checkpoints after three that failed, or one that needs a person", () => {
    const m = watched();
    for (const [at, lacks] of [
      [1000, false],
      [2100, false],
      [3200, true],
    ] as const) {
      m.say({ type: "tick", now: at }, notTaken(at + 50));
      expect(lacksCheckpoints(m.state)).toBe(lacks);
      expect(m.state.phase.name).toBe("watching");
    }
    m.say({ type: "checkpointed", now: 4300 });
    expect(lacksCheckpoints(m.state)).toBe(false);
    m.say({ type: "tick", now: 9000 }, notTaken(9050, true));
    expect(lacksCheckpoints(m.state)).toBe(true);
    expect(m.state.failures).toMatchObject({ count: 1, cause: "the store is full" });
  });

  it("makes a checkpoint when it is due, and counts from its end", () => {
    const m = watched().say({ type: "tick", now: 999 });
    expect(m.take()).toEqual([]);
    expect(m.say({ type: "tick", now: 1000 }).take()).toEqual([{ do: "checkpoint" }]);
    expect(m.say({ type: "tick", now: 5000 }).take()).toEqual([]);
    m.say({ type: "checkpointed", now: 6000 }, { type: "tick", now: 6999 });
    expect(m.take()).toEqual([]);
    expect(m.say({ type: "tick", now: 7000 }).take()).toEqual([{ do: "checkpoint" }]);
    m.say(notTaken(7100), { type: "tick", now: 8000 });
    expect(m.take()).toEqual([]);
  });

  it("waits with it for somebody else's operation, and counts somebody else's checkpoint", () => {
    const m = watched().say({ type: "busy" }, { type: "tick", now: 1500 });
    expect(m.take()).toEqual([]);
    expect(m.say({ type: "free", now: 1600 }).take()).toEqual([{ do: "checkpoint" }]);
    const other = watched().say(
      { type: "busy" },
      { type: "checkpointed", now: 900 },
      { type: "free", now: 900 },
    );
    expect(other.say({ type: "tick", now: 1500 }).take()).toEqual([]);
  });

  it("believes a death at the second look and then asks for the checkpoint", () => {
    const m = watched().look(2, ...dead);
    expect(m.take()).toEqual([]);
    m.look(3, ...well).look(4, ...dead);
    expect(m.take()).toEqual([]);
    expect(m.look(5, ...dead).take()).toEqual([{ do: "choose" }]);
    m.say({ type: "chosen", now: 6, checkpoint: "c7" });
    expect(m.take()).toEqual([{ do: "restart", checkpoint: "c7", avoid: [] }]);
    expect(m.state.phase).toMatchObject({ name: "fencing", deaths: ["the process of vm1 on h1 is gone"] });
    m.say({ type: "fenced" }, { type: "restarted", now: 9 });
    expect(m.state).toMatchObject({ phase: { name: "watching" }, attempts: 1 });
  });

  it("takes a panicked VM for dead, a silent agent or VMM not", () => {
    const panicked = sight("vm1", "alive", { status: "guest-panicked" });
    expect(watched().look(2, panicked).look(3, panicked).take()).toEqual([{ do: "choose" }]);
    const silent = sight("vm1", "alive", { status: "unknown", agent: false });
    expect(watched().look(2, silent).look(3, silent).look(4, silent).take()).toEqual([]);
  });

  it("believes a silent host at the third look and restarts elsewhere", () => {
    const cut = [sight("vm1", "unknown"), sight("vm2")];
    const m = watched()
      .look(2, ...cut)
      .look(3, ...cut);
    expect(m.take()).toEqual([]);
    m.look(4, ...cut).say({ type: "chosen", now: 5, checkpoint: "c1" });
    expect(m.take()).toEqual([{ do: "choose" }, { do: "restart", checkpoint: "c1", avoid: ["h1"] }]);
  });

  it("without proof of death stops, and goes on when the host answers again and the VM is gone", () => {
    const cut = [sight("vm1", "unknown"), sight("vm2")];
    const m = watched()
      .look(2, ...cut)
      .look(3, ...cut)
      .look(4, ...cut)
      .say(
        { type: "chosen", now: 5, checkpoint: "c1" },
        { type: "fence-failed", now: 6, cause: "host h1 does not answer", silent: true },
      );
    m.take();
    expect(m.state.phase).toMatchObject({ name: "stuck", reason: expect.stringContaining("may still run") });
    expect(
      m
        .look(7, ...cut)
        .look(8, ...cut)
        .take(),
    ).toEqual([]);
    expect(m.look(9, ...dead).take()).toEqual([{ do: "choose" }]);
  });

  it("does not take a VM for dead that it never saw alive, but remembers those an earlier server saw", () => {
    const m = new Machine()
      .look(1, ...dead)
      .look(2, ...dead)
      .look(3, ...dead);
    expect(m.take()).toEqual([]);
    m.state = initialReactive(rules, 0, { attempts: 1, seen: ["vm1"] });
    expect(
      m
        .look(1, ...dead)
        .look(2, ...dead)
        .take(),
    ).toEqual([{ do: "choose" }]);
  });

  it("without a complete checkpoint kills nothing and says so", () => {
    const m = watched()
      .look(2, ...dead)
      .look(3, ...dead)
      .say({ type: "chosen", now: 4, checkpoint: undefined });
    expect(m.take()).toEqual([{ do: "choose" }]);
    expect(m.state.phase).toMatchObject({
      name: "stuck",
      reason: "the process of vm1 on h1 is gone; there is no complete checkpoint to restart from",
    });
  });

  it("restarts again after the back-off, which doubles, and at most so often", () => {
    const m = restarting().say({ type: "restart-failed", now: 10, cause: "no room", needsOperator: false });
    m.take();
    expect(m.state.phase).toMatchObject({ name: "waiting", until: 110 });
    expect(m.say({ type: "tick", now: 109 }).take()).toEqual([]);
    expect(m.say({ type: "tick", now: 110 }).take()).toEqual([{ do: "choose" }]);
    m.say({ type: "chosen", now: 111, checkpoint: "c1" }, { type: "fenced" });
    m.say({ type: "restart-failed", now: 120, cause: "no room", needsOperator: false });
    expect(m.state.phase).toMatchObject({ name: "stuck", reason: "2 restarts did not help: no room" });
    expect([backoffOf(rules, 1), backoffOf(rules, 2), backoffOf(rules, 99)]).toEqual([100, 200, 3_600_000]);
  });

  it("counts restarts that came up and died again, until a checkpoint shows progress", () => {
    const m = restarting().say({ type: "restarted", now: 10 });
    m.look(11, ...well)
      .look(12, ...dead)
      .look(13, ...dead);
    expect(m.state.phase).toMatchObject({ name: "waiting", until: 110 });
    const fresh = restarting().say({ type: "restarted", now: 10 }, { type: "checkpointed", now: 500 });
    fresh.take();
    expect(
      fresh
        .look(501, ...dead)
        .look(502, ...dead)
        .take(),
    ).toEqual([{ do: "choose" }]);
  });

  it("stops for a person at once when a restart needs one, and goes on when all VMs live again", () => {
    const m = restarting().say({
      type: "restart-failed",
      now: 10,
      cause: "look at vm2",
      needsOperator: true,
    });
    expect(m.state.phase).toMatchObject({ name: "stuck", reason: "look at vm2" });
    m.take();
    m.look(11, ...dead).look(12, ...dead);
    expect(m.take()).toEqual([]);
    m.look(13, ...well);
    expect(m.state).toMatchObject({ phase: { name: "watching" }, attempts: 0 });
  });

  it("when all live at a closer look, watches on", () => {
    const m = watched()
      .look(2, ...dead)
      .look(3, ...dead)
      .say({ type: "chosen", now: 4, checkpoint: "c1" }, { type: "alive" });
    expect(m.state).toMatchObject({ phase: { name: "watching" }, attempts: 0 });
  });

  it("keeps its promises over any order of events", () => {
    const process = fc.constantFrom<Sight["process"]>("alive", "alive", "gone", "unknown");
    const cause = fc.constant("why");
    const event = fc.oneof(
      { weight: 4, arbitrary: fc.record({ type: fc.constant("tick" as const) }) },
      {
        weight: 6,
        arbitrary: fc.record({
          type: fc.constant("look" as const),
          sights: fc.tuple(process, process).map(([a, b]) => [sight("vm1", a), sight("vm2", b)]),
        }),
      },
      fc.record({ type: fc.constantFrom("busy" as const, "free" as const) }),
      fc.record({ type: fc.constant("checkpointed" as const) }),
      fc.record({ type: fc.constant("checkpoint-failed" as const), cause, needsOperator: fc.boolean() }),
      fc.record({ type: fc.constant("chosen" as const), checkpoint: fc.constantFrom("c1", undefined) }),
      fc.record({
        type: fc.constantFrom("fenced" as const, "alive" as const, "restarted" as const, "declined" as const),
      }),
      fc.record({ type: fc.constant("fence-failed" as const), cause, silent: fc.boolean() }),
      fc.record({ type: fc.constant("restart-failed" as const), cause, needsOperator: fc.boolean() }),
    );
    fc.assert(
      fc.property(fc.array(fc.tuple(event, fc.integer({ min: 0, max: 400 })), { maxLength: 120 }), (list) => {
        const m = new Machine();
        let now = 0;
        let restarts = 0;
        let seenDead = false;
        for (const [raw, later] of list) {
          now += later;
          const before = m.state;
          const given = { ...raw, now } as ReactiveEvent;
          m.say(given);
          if (given.type === "look" && !before.busy)
            seenDead ||= given.sights.some((s) => s.process !== "alive" && before.seen.has(s.vm));
          if (given.type === "checkpointed") restarts = 0;
          // A person has put it right.
          if (before.phase.name === "stuck" && m.state.phase.name === "watching") restarts = 0;
          if (before.phase.name === "fencing" && m.state.phase.name === "restarting") restarts++;
          const effects = m.take();
          expect(effects.length).toBeLessThanOrEqual(1);
          for (const effect of effects) {
            // Nothing begins on another operation, nor beside one of its own.
            if (effect.do !== "restart") expect(before.busy && given.type !== "free").toBe(false);
            expect(["checkpointing", "fencing", "restarting"]).not.toContain(before.phase.name);
            if (effect.do !== "checkpoint") expect(seenDead).toBe(true);
            if (effect.do === "restart") expect(before.phase.name).toBe("choosing");
          }
          expect(restarts).toBeLessThanOrEqual(rules.maxRestarts);
          expect(m.state.attempts).toBeLessThanOrEqual(rules.maxRestarts);
        }
      }),
      { numRuns: 200 },
    );
  });
});
