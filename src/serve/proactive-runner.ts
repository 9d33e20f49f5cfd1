/** Runs the proactive policy: alerts in, evacuations out, one at a time. */
import {
  type AlertVerdict,
  nextRetry,
  type ProactiveEvent,
  type ProactiveRules,
  type ProactiveState,
  reduceProactive,
} from "../policy/proactive.js";
import type { HostAlert } from "../policy/alerts.js";
import { plainText } from "../controller/plain-text.js";
import { ExitCode } from "../errors.js";
import { steadyNow } from "./clock.js";
import { OperationBusy, type Operations, type OperationView } from "./operations.js";
import type { Verbs } from "./verbs.js";

const MAX_IGNORED = 100;
const MAX_TIMER_MS = 2 ** 31 - 1;

export interface ProactiveOptions {
  rules: ProactiveRules;
  /** Names of the cluster file. */
  hosts: readonly string[];
  verbs: Verbs;
  operations: Operations;
  onChange: () => void;
  log: (text: string) => void;
}

export interface AlertAnswer {
  alert: string;
  host: string | null;
  /** "ignored": it names no host of the cluster file. */
  verdict: AlertVerdict | "ignored";
}

export class ProactiveRunner {
  readonly #options: ProactiveOptions;
  #state: ProactiveState = new Map();
  #retry: NodeJS.Timeout | undefined;
  #stopped = false;
  /** Alerts that name no host of ours, so that each is logged once. */
  readonly #ignored = new Set<string>();

  constructor(options: ProactiveOptions) {
    this.#options = options;
  }

  get state(): ProactiveState {
    return this.#state;
  }

  /** Takes the alerts of one message. What is to be done is begun before it returns, or waits for the running operation. */
  take(alerts: readonly HostAlert[]): AlertAnswer[] {
    const { hosts, log } = this.#options;
    const answers = alerts.map(({ status, host, alert }): AlertAnswer => {
      if (host === undefined || !hosts.includes(host)) {
        this.#ignore(alert, host);
        return { alert, host: host ?? null, verdict: "ignored" };
      }
      const verdict = this.#dispatch({ type: status, now: steadyNow(), host, alert }) ?? "unknown";
      if (verdict === "queued" || verdict === "cancelled")
        log(`alert for ${host} ${status}: evacuation ${verdict}`);
      return { alert, host, verdict };
    });
    this.#pump();
    return answers;
  }

  /** An operation has ended: the next may begin, after those who wait for this end have heard of it. */
  operation(change: "begin" | "end", _view: OperationView): void {
    if (change === "end") setImmediate(() => this.#pump());
  }

  /** No evacuation begins any more by itself. */
  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#retry);
  }

  #ignore(alert: string, host: string | undefined): void {
    const what =
      host === undefined ? "names no host" : `is for "${plainText(host, 80)}", no host of the cluster file`;
    const line = `alert ${plainText(alert, 80)} ignored: it ${what}`;
    if (this.#ignored.has(line) || this.#ignored.size >= MAX_IGNORED) return;
    this.#ignored.add(line);
    this.#options.log(line);
  }

  #dispatch(event: ProactiveEvent): AlertVerdict | undefined {
    const before = this.#state;
    const step = reduceProactive(this.#options.rules, before, event);
    this.#state = step.state;
    if (step.state !== before) this.#options.onChange();
    this.#awaitRetry();
    if (step.evacuate !== undefined) this.#evacuate(step.evacuate.host, step.evacuate.avoid);
    return step.verdict;
  }

  #pump(): void {
    if (!this.#stopped && this.#options.operations.current === undefined)
      this.#dispatch({ type: "free", now: steadyNow() });
  }

  #awaitRetry(): void {
    clearTimeout(this.#retry);
    const at = nextRetry(this.#state);
    if (at === undefined || this.#stopped) return;
    const ms = Math.min(Math.max(at - steadyNow(), 0) + 1, MAX_TIMER_MS);
    this.#retry = setTimeout(() => this.#pump(), ms).unref();
  }

  #evacuate(host: string, avoid: readonly string[]): void {
    const { operations, verbs, hosts, log } = this.#options;
    const to = hosts.filter((h) => h !== host && !avoid.includes(h));
    const what = `evacuate ${host} (alert)`;
    try {
      const { ended } = operations.begin({ verb: "evacuate", by: "proactive", what }, (run) =>
        verbs.evacuate({ host, to }, run),
      );
      void ended.then(({ exitCode, error, report }) => {
        const message = error?.message ?? (report as { message?: string } | null)?.message ?? "";
        log(`${what}: ${message}`);
        const untouched = exitCode === ExitCode.refused || exitCode === ExitCode.unreachable;
        const succeeded = exitCode === ExitCode.done;
        this.#dispatch({ type: "ended", now: steadyNow(), host, succeeded, untouched, message });
      });
    } catch (error) {
      // Somebody was faster, or the server stops.
      this.#dispatch({ type: "declined", host });
      if (!(error instanceof OperationBusy)) log(`${what}: ${String(error)}`);
    }
  }
}
