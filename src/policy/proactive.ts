/**
 * Proactive fault tolerance as a pure state machine: which host an alert has evacuated, and when. One evacuation at a
 * time, in the order the alerts came. `now` comes with each event, in milliseconds.
 */

export interface ProactiveRules {
  /** After an evacuation that did not succeed, before it is tried again if its alerts still fire. */
  backoffMs: number;
}

export interface AlertedHost {
  host: string;
  /** Alerts that fire for it; no more than MAX_ALERTS are told apart. */
  alerts: ReadonlySet<string>;
  state: "queued" | "running" | "done" | "failed";
  /** "failed": not tried again before. */
  retryAt: number;
  message: string;
}

/** In the order the alerts came. */
export type ProactiveState = ReadonlyMap<string, AlertedHost>;

export type ProactiveEvent =
  | { type: "firing"; now: number; host: string; alert: string }
  | { type: "resolved"; now: number; host: string; alert: string }
  /** Nobody's operation runs. */
  | { type: "free"; now: number }
  /** `untouched`: it was refused, or something could not be reached, before anything was touched. */
  | {
      type: "ended";
      now: number;
      host: string;
      succeeded: boolean;
      untouched: boolean;
      message: string;
    }
  /** The evacuation could not begin: somebody else was first. */
  | { type: "declined"; host: string };

/** What became of an alert, for whoever sent it. */
export type AlertVerdict = "queued" | "known" | "waits" | "cancelled" | "running" | "resolved" | "unknown";

export interface ProactiveStep {
  state: ProactiveState;
  /** Evacuate this host, to none of those. */
  evacuate?: { host: string; avoid: string[] };
  verdict?: AlertVerdict;
}

export const MAX_ALERTS = 1000;
/** Another controller that is just at work soon is not. */
const UNTOUCHED_MS = 30_000;

/** When a host whose evacuation failed is tried again, as long as an alert fires for it; undefined: none is. */
export function nextRetry(state: ProactiveState): number | undefined {
  const times = [...state.values()].filter((h) => h.state === "failed").map((h) => h.retryAt);
  return times.length === 0 ? undefined : Math.min(...times);
}

export function reduceProactive(
  rules: ProactiveRules,
  state: ProactiveState,
  event: ProactiveEvent,
): ProactiveStep {
  switch (event.type) {
    case "firing":
      return firing(state, event);
    case "resolved":
      return resolved(state, event);
    case "free": {
      const hosts = [...state.values()];
      if (hosts.some((h) => h.state === "running")) return { state };
      const next =
        hosts.find((h) => h.state === "queued") ??
        hosts.find((h) => h.state === "failed" && event.now >= h.retryAt);
      if (next === undefined) return { state };
      const avoid = [...state.keys()].filter((host) => host !== next.host);
      return { state: put(state, { ...next, state: "running" }), evacuate: { host: next.host, avoid } };
    }
    case "ended": {
      const there = state.get(event.host);
      if (there?.state !== "running") return { state };
      if (there.alerts.size === 0) return { state: without(state, event.host) };
      const end = event.succeeded ? "done" : "failed";
      const { message } = event;
      const waitMs = event.untouched ? Math.min(UNTOUCHED_MS, rules.backoffMs) : rules.backoffMs;
      return { state: put(state, { ...there, state: end, message, retryAt: event.now + waitMs }) };
    }
    case "declined": {
      const there = state.get(event.host);
      if (there?.state !== "running") return { state };
      return {
        state:
          there.alerts.size === 0 ? without(state, event.host) : put(state, { ...there, state: "queued" }),
      };
    }
  }
}

function firing(
  state: ProactiveState,
  { now, host, alert }: Extract<ProactiveEvent, { type: "firing" }>,
): ProactiveStep {
  const there = state.get(host);
  if (there === undefined) {
    const queued = { host, alerts: new Set([alert]), state: "queued", retryAt: 0, message: "" } as const;
    return { state: put(state, queued), verdict: "queued" };
  }
  const alerts = there.alerts.size < MAX_ALERTS ? new Set([...there.alerts, alert]) : there.alerts;
  // Alertmanager repeats what still fires.
  if (there.state === "failed" && now >= there.retryAt) {
    // At the end of the queue.
    return { state: put(without(state, host), { ...there, alerts, state: "queued" }), verdict: "queued" };
  }
  return { state: put(state, { ...there, alerts }), verdict: there.state === "failed" ? "waits" : "known" };
}

function resolved(
  state: ProactiveState,
  { host, alert }: Extract<ProactiveEvent, { type: "resolved" }>,
): ProactiveStep {
  const there = state.get(host);
  if (there?.alerts.has(alert) !== true) return { state, verdict: "unknown" };
  const alerts = new Set([...there.alerts].filter((a) => a !== alert));
  if (alerts.size > 0) return { state: put(state, { ...there, alerts }), verdict: "resolved" };
  // What has begun goes on to its end: a VM half-way is no better off.
  if (there.state === "running") return { state: put(state, { ...there, alerts }), verdict: "running" };
  return { state: without(state, host), verdict: there.state === "queued" ? "cancelled" : "resolved" };
}

function put(state: ProactiveState, host: AlertedHost): ProactiveState {
  return new Map(state).set(host.host, host);
}

function without(state: ProactiveState, host: string): ProactiveState {
  return new Map([...state].filter(([name]) => name !== host));
}
