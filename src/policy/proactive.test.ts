import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { hostAlerts, webhook } from "./alerts.js";
import { nextRetry, type ProactiveEvent, type ProactiveState, reduceProactive } from "./proactive.js";

const rules = { backoffMs: 100 };
const firing = (host: string, alert = "a", now = 0): ProactiveEvent => ({ type: "firing", now, host, alert });
const resolved = (host: string, alert = "a"): ProactiveEvent => ({ type: "resolved", now: 0, host, alert });
const ended = (host: string, succeeded: boolean, now = 0, untouched = false): ProactiveEvent => ({
  ...{ type: "ended", now, host, succeeded, untouched, message: "" },
});
const free = (now = 0): ProactiveEvent => ({ type: "free", now });

/** Verdicts and evacuations in the order they came. */
function play(...events: ProactiveEvent[]): { state: ProactiveState; said: unknown[] } {
  let state: ProactiveState = new Map();
  const said: unknown[] = [];
  for (const event of events) {
    const step = reduceProactive(rules, state, event);
    state = step.state;
    if (step.verdict !== undefined) said.push(step.verdict);
    if (step.evacuate !== undefined) said.push(step.evacuate);
  }
  return { state, said };
}

describe("proactive policy", () => {
  it("evacuates one host at a time, in the order the alerts came, and to no host with an alert", () => {
    const { said } = play(firing("h1"), firing("h2"), free(), free(), ended("h1", true), free());
    expect(said).toEqual(["queued", "queued", { host: "h1", avoid: ["h2"] }, { host: "h2", avoid: ["h1"] }]);
  });

  it("cancels what has not begun when every alert of the host is resolved", () => {
    const { said, state } = play(
      firing("h1", "a"),
      firing("h1", "b"),
      resolved("h1", "a"),
      resolved("h1", "b"),
      free(),
    );
    expect(said).toEqual(["queued", "known", "resolved", "cancelled"]);
    expect(state.size).toBe(0);
    expect(play(firing("h1"), free(), resolved("h1"), ended("h1", true)).state.size).toBe(0);
    expect(play(resolved("h1")).said).toEqual(["unknown"]);
  });

  it("tries again what failed only after the back-off, and not what succeeded", () => {
    const failed = [firing("h1"), free(), ended("h1", false, 10)];
    expect(play(...failed, firing("h1", "a", 109)).said.at(-1)).toBe("waits");
    expect(play(...failed, firing("h1", "a", 110), free()).said.slice(-2)).toEqual([
      "queued",
      { host: "h1", avoid: [] },
    ]);
    expect(play(firing("h1"), free(), ended("h1", true), firing("h1", "a", 9999)).said.at(-1)).toBe("known");
  });

  it("tries again by itself what failed, as long as an alert fires, and soon what was only refused", () => {
    const long = { backoffMs: 1_000_000 };
    const failed = (untouched: boolean) => {
      let state: ProactiveState = new Map();
      for (const event of [firing("h1"), free(), ended("h1", false, 10, untouched)])
        state = reduceProactive(long, state, event).state;
      return state;
    };
    expect(nextRetry(failed(false))).toBe(1_000_010);
    expect(nextRetry(failed(true))).toBe(30_010);
    expect(reduceProactive(long, failed(true), free(30_009)).evacuate).toBeUndefined();
    expect(reduceProactive(long, failed(true), free(30_010)).evacuate).toEqual({ host: "h1", avoid: [] });
    const over = reduceProactive(long, failed(true), resolved("h1")).state;
    expect(nextRetry(over)).toBeUndefined();
    expect(reduceProactive(long, over, free(9e9)).evacuate).toBeUndefined();
  });

  it("goes back into the queue when somebody else was faster", () => {
    const { said } = play(firing("h1"), free(), { type: "declined", host: "h1" }, free());
    expect(said.slice(-1)).toEqual([{ host: "h1", avoid: [] }]);
  });

  it("never runs two, over any order of events", () => {
    const host = fc.constantFrom("h1", "h2", "h3");
    const now = fc.integer({ min: 0, max: 300 });
    const event = fc.oneof(
      fc.record({
        type: fc.constantFrom("firing" as const, "resolved" as const),
        host,
        now,
        alert: fc.constantFrom("a", "b"),
      }),
      fc.record({ type: fc.constant("free" as const), now }),
      fc.record({
        type: fc.constant("ended" as const),
        host,
        now,
        succeeded: fc.boolean(),
        untouched: fc.boolean(),
        message: fc.constant(""),
      }),
      fc.record({ type: fc.constant("declined" as const), host }),
    );
    fc.assert(
      fc.property(fc.array(event, { maxLength: 60 }), (events) => {
        let state: ProactiveState = new Map();
        for (const one of events) {
          const before = state;
          const step = reduceProactive(rules, state, one);
          state = step.state;
          expect([...state.values()].filter((h) => h.state === "running").length).toBeLessThanOrEqual(1);
          if (step.evacuate !== undefined) {
            expect(["queued", "failed"]).toContain(before.get(step.evacuate.host)?.state);
            expect(before.get(step.evacuate.host)?.alerts.size).toBeGreaterThan(0);
            for (const other of step.evacuate.avoid) expect(before.has(other)).toBe(true);
          }
        }
      }),
    );
  });
});

describe("Alertmanager's webhook", () => {
  const alert = { status: "firing", labels: { alertname: "X", host: "h1" }, startsAt: "", annotations: {} };
  const message = { version: "4", status: "firing", alerts: [alert], receiver: "r", truncatedAlerts: 0 };

  it("is read by label; an alert without fingerprint is told apart by its labels", () => {
    const [first] = hostAlerts(webhook.parse(message), "host");
    expect(first).toMatchObject({
      status: "firing",
      host: "h1",
      alert: expect.stringMatching(/^[0-9a-f]{16}$/),
    });
    const swapped = { ...alert, labels: { host: "h1", alertname: "X" }, status: "resolved" };
    const [again] = hostAlerts(webhook.parse({ ...message, alerts: [swapped] }), "host");
    expect(again).toMatchObject({ status: "resolved", alert: first?.alert });
    expect(hostAlerts(webhook.parse(message), "node")[0]?.host).toBeUndefined();
    expect(hostAlerts(webhook.parse(message), "constructor")[0]?.host).toBeUndefined();
  });

  it.each([
    { ...message, version: "3" },
    { ...message, alerts: "none" },
    { ...message, alerts: [{ ...alert, labels: { host: 1 } }] },
    { ...message, alerts: [{ ...alert, status: "unknown" }] },
    { ...message, alerts: [{ ...alert, labels: { host: "x".repeat(5000) } }] },
    { ...message, alerts: Array.from({ length: 5000 }, () => alert) },
    null,
  ])("refuses what is none: case %#", (value) => {
    expect(webhook.safeParse(value).success).toBe(false);
  });

  it("never throws anything but a refusal", () => {
    fc.assert(fc.property(fc.anything(), (value) => void webhook.safeParse(value)));
  });
});
