/** Runs the proactive policy: alerts in, evacuations out, one at a time. */
import {
  type AlertVerdict,
  type ProactiveEvent,
  type ProactiveRules,
  type ProactiveState,
  reduceProactive,
} from "../policy/proactive.js";
import type { HostAlert } from "../policy/alerts.js";
import { OperationBusy, type Operations, type OperationView } from "./operations.js";
import type { Verbs } from "./verbs.js";

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
      if (host === undefined || !hosts.includes(host))
        return { alert, host: host ?? null, verdict: "ignored" };
      const verdict = this.#dispatch({ type: status, now: Date.now(), host, alert }) ?? "unknown";
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

  #dispatch(event: ProactiveEvent): AlertVerdict | undefined {
    const before = this.#state;
    const step = reduceProactive(this.#options.rules, before, event);
    this.#state = step.state;
    if (step.state !== before) this.#options.onChange();
    if (step.evacuate !== undefined) this.#evacuate(step.evacuate.host, step.evacuate.avoid);
    return step.verdict;
  }

  #pump(): void {
    if (this.#options.operations.current === undefined) this.#dispatch({ type: "free" });
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
        this.#dispatch({ type: "ended", now: Date.now(), host, succeeded: exitCode === 0, message });
      });
    } catch (error) {
      // Somebody was faster, or the server stops.
      this.#dispatch({ type: "declined", host });
      if (!(error instanceof OperationBusy)) log(`${what}: ${String(error)}`);
    }
  }
}
