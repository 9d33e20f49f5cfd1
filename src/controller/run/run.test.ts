import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { SymvirtError } from "../../errors.js";
import type { Verdict } from "../conditions.js";
import type { DeadlineName } from "../cycle.js";
import { Awaited } from "./awaited.js";
import { EventQueue } from "./event-queue.js";
import { PhaseDeadline } from "./phase-deadline.js";
import { type OpEnd, RunningOp } from "./running-op.js";

describe("the queue of events", () => {
  it("takes one at a time, in order, and is idle once after all of them", () => {
    const seen: string[] = [];
    const queue: EventQueue<number> = new EventQueue({
      take: (n: number) => {
        seen.push(`take ${n} ${queue.busy}`);
        if (n === 1) queue.push(2);
        seen.push(`taken ${n}`);
      },
      idle: () => seen.push(`idle ${queue.busy}`),
      crash: () => undefined,
    });
    queue.push(1);
    expect(seen).toEqual(["take 1 true", "taken 1", "take 2 true", "taken 2", "idle false"]);
  });

  it("gives up at an internal error, with what threw it", () => {
    const crashes: unknown[] = [];
    const queue = new EventQueue<number>({
      take: () => {
        throw new Error("a bug");
      },
      idle: () => crashes.push("idle"),
      crash: (error) => crashes.push(error),
    });
    queue.push(1);
    expect(crashes).toEqual([new Error("a bug")]);
  });
});

describe("the work of a phase", () => {
  it("ends by itself, or with the words of its error", async () => {
    const ends: OpEnd[] = [];
    const op = new RunningOp(1000, (end) => ends.push(end));
    op.begin(async () => undefined);
    await vi.waitFor(() => expect(ends).toEqual([{ type: "ok" }]));
    op.begin(() => Promise.reject(new Error("no room")));
    await vi.waitFor(() => expect(ends.at(-1)).toEqual({ type: "fail", cause: "no room" }));
  });

  it("is told to stop, and given up when it does not; then its late end counts no more", async () => {
    const ends: OpEnd[] = [];
    const op = new RunningOp(20, (end) => ends.push(end));
    let finish: () => void = () => undefined;
    op.begin(
      (signal) =>
        new Promise((resolve) => {
          signal.addEventListener("abort", () => ends.push({ type: "fail", cause: "told" }));
          finish = resolve;
        }),
    );
    op.cancel("asked to stop", "detach");
    await vi.waitFor(() => expect(ends).toHaveLength(2));
    expect(ends).toEqual([
      { type: "fail", cause: "told" },
      {
        ...{ type: "fail", unsettled: true },
        cause: "asked to stop, but the work of phase detach did not stop within 0.02 s",
      },
    ]);
    finish();
    await sleep(1);
    expect(ends).toHaveLength(2);
    op.cancel("nothing is on", "detach");
  });
});

describe("an op whose effect nobody knows", () => {
  it("is unsettled", async () => {
    const ends: OpEnd[] = [];
    const op = new RunningOp(20, (end) => ends.push(end));
    op.begin(() =>
      Promise.reject(new SymvirtError("needsOperator", "it may have moved", { unsettled: true })),
    );
    await vi.waitFor(() =>
      expect(ends).toEqual([{ type: "fail", cause: "it may have moved", unsettled: true }]),
    );
  });

  it("is told to stop when its cycle is cut short", async () => {
    let told = false;
    const op = new RunningOp(20, () => undefined);
    op.begin((signal) => new Promise(() => signal.addEventListener("abort", () => (told = true))));
    op.abandon();
    expect(told).toBe(true);
  });
});

describe("the deadline of a phase", () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  it("names itself, the phase and at most six who are late; armed anew the first is off", () => {
    const causes: string[] = [];
    const ms = { park: 2000, detach: 5000 } as Record<DeadlineName, number>;
    let late: string[] = [];
    const deadline = new PhaseDeadline(
      ms,
      () => ({ phase: "wait", late }),
      (cause) => causes.push(cause),
    );
    deadline.arm("park");
    deadline.arm("detach");
    vi.advanceTimersByTime(4999);
    expect(causes).toEqual([]);
    vi.advanceTimersByTime(1);
    expect(causes).toEqual(['the deadline "detach" (5 s) passed in phase wait']);
    late = ["r0", "r1", "r2", "r3", "r4", "r5", "r6"];
    deadline.arm("park");
    vi.advanceTimersByTime(2000);
    expect(causes[1]).toBe('the deadline "park" (2 s) passed in phase wait: r0; r1; r2; r3; r4; r5; …');
    deadline.arm("park");
    deadline.clear();
    vi.advanceTimersByTime(60_000);
    expect(causes).toHaveLength(2);
  });
});

describe("what a phase waits for", () => {
  const met = (): Verdict => ({ met: true });

  it("is settled once, and tells who is late until then", () => {
    const awaited = new Awaited(
      () => Promise.resolve(),
      () => undefined,
    );
    expect(awaited.settled(met)).toBeUndefined();
    awaited.watch("parked");
    expect(awaited.late(() => ({ met: false, late: ["rank 1"] }))).toEqual(["rank 1"]);
    expect(awaited.settled(() => ({ met: false, late: ["rank 1"] }))).toBeUndefined();
    expect(awaited.settled(met)).toEqual({ type: "ok" });
    expect(awaited.settled(met)).toBeUndefined();
    awaited.watch("running");
    expect(awaited.settled(() => ({ met: "failed", why: "no port" }))).toEqual({
      ...{ type: "step-failed", cause: "no port" },
    });
  });

  it.each(["link-up", "released"] as const)(
    "is %s only by what guests say after they were asked",
    async (condition) => {
      let answer: () => void = () => undefined;
      let answered = 0;
      const awaited = new Awaited(
        () => new Promise<void>((resolve) => (answer = resolve)),
        () => answered++,
      );
      awaited.watch(condition);
      expect(awaited.settled(met)).toBeUndefined();
      answer();
      await vi.waitFor(() => expect(answered).toBe(1));
      expect(awaited.settled(met)).toEqual({ type: "ok" });
    },
  );

  it("is forgotten with its phase, and what was asked for it", async () => {
    const asked: AbortSignal[] = [];
    const awaited = new Awaited(
      (signal) => {
        asked.push(signal);
        return new Promise(() => undefined);
      },
      () => undefined,
    );
    awaited.watch("link-up");
    awaited.forget();
    expect(asked[0]?.aborted).toBe(true);
    expect(awaited.settled(met)).toBeUndefined();
    awaited.watch("parked");
    expect(awaited.settled(met)).toEqual({ type: "ok" });
  });
});
