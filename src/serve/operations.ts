/** The operations of a server: one at a time, each with its progress and its end; the last ones are remembered. */
import { randomUUID } from "node:crypto";
import type { SetPhase } from "../controller/checkpoint/set-cycle.js";
import type { Phase } from "../controller/cycle.js";
import type { CycleProgress } from "../controller/runner.js";
import type { CycleTarget } from "../controller/state/journal.js";
import { ExitCode, type ExitCodeName, SymvirtError } from "../errors.js";
import type { Run } from "./verbs.js";

export type OperationVerb = "migrate" | "evacuate" | "checkpoint" | "restart" | "abort";
/** Who asked: a client, or the policy. */
export type OperationSource = "request" | "reactive" | "proactive";

export interface OperationError {
  exit: ExitCodeName;
  message: string;
  hint?: string;
}

/** As clients see it. */
export interface OperationView {
  id: string;
  verb: OperationVerb;
  by: OperationSource;
  /** "migrate vm1 to h3". */
  what: string;
  state: "running" | "stopping" | "ended";
  /** ISO 8601. */
  startedAt: string;
  endedAt: string | null;
  /** Of the cycle that runs; null before it and between two. */
  progress: {
    target: Pick<CycleTarget, "cycle" | "vm" | "from" | "to">;
    now: CycleProgress<Phase | SetPhase>;
  } | null;
  /** The verb's report, once it has ended with one. */
  report: object | null;
  /** Why it did not begin, or broke: nothing was touched unless `exit` says otherwise. */
  error: OperationError | null;
  /** Of the verb as a command (docs/operations.md); null while it runs. */
  exitCode: number | null;
}

export interface OperationOrder {
  verb: OperationVerb;
  by: OperationSource;
  what: string;
}

/** Another operation runs. */
export class OperationBusy extends Error {
  constructor(readonly running: OperationView) {
    super(`${running.what} is running`);
  }
}

export interface BegunOperation {
  view: OperationView;
  /** Never rejects. */
  ended: Promise<OperationView>;
}

/** How many ended operations can still be asked for. */
const KEPT = 100;

export class Operations {
  /** "begin" and "end" of each, "progress" between; set by the server. */
  onChange: (change: "begin" | "progress" | "stop" | "end", view: OperationView) => void = () => undefined;
  readonly #ended: OperationView[] = [];
  #closed = false;
  #current: { view: OperationView; abort: AbortController; ended: Promise<OperationView> } | undefined;

  get current(): OperationView | undefined {
    return this.#current?.view;
  }

  get running(): BegunOperation | undefined {
    return this.#current;
  }

  find(id: string): OperationView | undefined {
    return this.current?.id === id ? this.current : this.#ended.find((o) => o.id === id);
  }

  /** Throws OperationBusy while another runs, and SymvirtError "refused" when the server is stopping. */
  begin(order: OperationOrder, work: (run: Run) => Promise<object>): BegunOperation {
    if (this.#current !== undefined) throw new OperationBusy(this.#current.view);
    if (this.#closed) throw new SymvirtError("refused", "the server is stopping");
    const view: OperationView = {
      id: randomUUID(),
      ...order,
      state: "running",
      startedAt: new Date().toISOString(),
      ...{ endedAt: null, progress: null, report: null, error: null, exitCode: null },
    };
    const abort = new AbortController();
    const ended = this.#follow(view, abort.signal, work);
    this.#current = { view, abort, ended };
    this.onChange("begin", view);
    return { view, ended };
  }

  /** Asks the running operation to roll back and end; undefined when none runs. */
  stop(reason: string): BegunOperation | undefined {
    const current = this.#current;
    if (current === undefined) return undefined;
    if (current.view.state === "running") {
      current.view.state = "stopping";
      current.abort.abort(new SymvirtError("terminated", reason));
      this.onChange("stop", current.view);
    }
    return current;
  }

  /** No operation begins any more; resolves when the running one, asked to roll back, has ended. */
  async close(reason: string): Promise<OperationView | undefined> {
    this.#closed = true;
    return await this.stop(reason)?.ended;
  }

  async #follow(
    view: OperationView,
    signal: AbortSignal,
    work: (run: Run) => Promise<object>,
  ): Promise<OperationView> {
    const run: Run = {
      signal,
      onProgress: ({ cycle, vm, from, to }, now) => {
        view.progress = { target: { cycle, vm, from, to }, now };
        this.onChange("progress", view);
      },
    };
    // Who begins it must hear of "begin" before anything else.
    await Promise.resolve();
    try {
      view.report = await work(run);
      view.exitCode = exitOfReport(view.verb, view.report);
    } catch (error) {
      view.error = errorOf(error);
      view.exitCode = ExitCode[view.error.exit];
    }
    view.state = "ended";
    view.progress = null;
    view.endedAt = new Date().toISOString();
    this.#current = undefined;
    this.#ended.push(view);
    if (this.#ended.length > KEPT) this.#ended.shift();
    this.onChange("end", view);
    return view;
  }
}

export function errorOf(error: unknown): OperationError {
  if (!(error instanceof SymvirtError))
    return { exit: "internal", message: error instanceof Error ? error.message : String(error) };
  const { exit, message, hint } = error;
  return { exit, message, ...(hint === undefined ? {} : { hint }) };
}

/** The exit code the command would have had. */
export function exitOfReport(verb: OperationVerb, report: object): number {
  const { outcome, report: cycle } = report as { outcome?: unknown; report?: { verb?: unknown } | null };
  if (outcome === "needs-operator") return ExitCode.needsOperator;
  if (verb === "abort") {
    // Done by its own controller before it could be stopped.
    return outcome === "done" && cycle != null && cycle.verb !== "abort" ? ExitCode.refused : ExitCode.done;
  }
  return outcome === "done" ? ExitCode.done : ExitCode.rolledBack;
}
