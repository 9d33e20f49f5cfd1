/** Runs the reactive policy: the clock, the looks and the operations that its state machine asks for. */
import { readFileSync, renameSync, writeFileSync } from "node:fs";
import { z } from "zod";
import { ExitCode, SymvirtError } from "../errors.js";
import {
  initialReactive,
  type ReactiveEffect,
  type ReactiveEvent,
  type ReactiveRules,
  type ReactiveState,
  reduceReactive,
} from "../policy/reactive.js";
import type { VmSight } from "../controller/liveness.js";
import { HostUnanswering } from "../controller/fence.js";
import { steadyNow } from "./clock.js";
import { errorOf, OperationBusy, type Operations, type OperationView } from "./operations.js";
import type { CheckpointVerbs, Verbs } from "./verbs.js";

export interface ReactiveOptions {
  rules: ReactiveRules;
  watchMs: number;
  verbs: Verbs;
  checkpoints: CheckpointVerbs;
  operations: Operations;
  /** Where it is kept what a server that is started again must know. */
  file: string;
  /** Hosts no VM should be restarted on, beside those that are silent. */
  alerted: () => readonly string[];
  onChange: (state: ReactiveState) => void;
  onLook: (sights: readonly VmSight[]) => void;
  log: (text: string) => void;
}

const kept = z.object({
  schemaVersion: z.literal(1),
  attempts: z.number().int().min(0),
  seen: z.array(z.string()),
});

export class ReactiveRunner {
  readonly #options: ReactiveOptions;
  readonly #stop = new AbortController();
  #state: ReactiveState;
  #timer: NodeJS.Timeout | undefined;
  #looking: Promise<void> = Promise.resolve();
  #written = "";

  constructor(options: ReactiveOptions) {
    this.#options = options;
    this.#state = initialReactive(options.rules, steadyNow(), readKept(options.file));
  }

  get state(): ReactiveState {
    return this.#state;
  }

  start(): void {
    this.#options.onChange(this.#state);
    this.#next();
  }

  /** No look and no effect any more; an operation that runs is the server's to end. */
  async stop(): Promise<void> {
    this.#stop.abort();
    clearTimeout(this.#timer);
    await this.#looking;
  }

  /** An operation of anybody has begun or ended. */
  operation(change: "begin" | "end", view: OperationView): void {
    const now = steadyNow();
    if (view.by !== "reactive") this.dispatch(change === "begin" ? { type: "busy" } : { type: "free", now });
    if (change !== "end" || view.verb !== "checkpoint") return;
    if (view.exitCode === ExitCode.done) this.dispatch({ type: "checkpointed", now });
    else {
      const needsOperator = view.exitCode === ExitCode.needsOperator;
      this.dispatch({ type: "checkpoint-failed", now, cause: causeOf(view), needsOperator });
    }
  }

  dispatch(event: ReactiveEvent): void {
    if (this.#stop.signal.aborted) return;
    const before = this.#state;
    const { state, effects } = reduceReactive(this.#options.rules, before, event);
    this.#state = state;
    this.#keep();
    if (state.phase !== before.phase || state.failures !== before.failures) {
      this.#options.log(describe(state));
      this.#options.onChange(state);
    }
    for (const effect of effects) this.#perform(effect);
  }

  #next(): void {
    this.#timer = setTimeout(() => {
      this.#looking = this.#look().finally(() => {
        if (!this.#stop.signal.aborted) this.#next();
      });
    }, this.#options.watchMs);
  }

  async #look(): Promise<void> {
    const { verbs, operations, onLook, log } = this.#options;
    try {
      if (operations.current === undefined) {
        const sights = await verbs.look(this.#stop.signal);
        // One may have begun while we looked.
        if (sights !== undefined && operations.current === undefined) {
          onLook(sights);
          this.dispatch({ type: "look", now: steadyNow(), sights });
        }
      }
    } catch (error) {
      if (!this.#stop.signal.aborted) log(`cannot look at the VMs: ${errorOf(error).message}`);
    }
    this.dispatch({ type: "tick", now: steadyNow() });
  }

  #perform(effect: ReactiveEffect): void {
    const work = {
      checkpoint: () => this.#checkpoint(),
      choose: () => this.#choose(),
      restart: () => (effect.do === "restart" ? this.#restart(effect) : Promise.resolve()),
    }[effect.do];
    work().catch((error: unknown) => {
      if (error instanceof OperationBusy) this.dispatch({ type: "declined", now: steadyNow() });
      else {
        this.#options.log(`the reactive policy failed, and tries again: ${errorOf(error).message}`);
        this.dispatch({ type: "declined", now: steadyNow() });
      }
    });
  }

  async #checkpoint(): Promise<void> {
    const { operations, checkpoints } = this.#options;
    operations.begin({ verb: "checkpoint", by: "reactive", what: "checkpoint (reactive policy)" }, (run) =>
      checkpoints.checkpoint({}, run),
    );
  }

  async #choose(): Promise<void> {
    const { checkpoints, log } = this.#options;
    let checkpoint: string | undefined;
    try {
      const ids = (await checkpoints.complete(this.#stop.signal)).map((c) => c.id).reverse();
      // Before anything is killed for it.
      for (const id of ids) {
        const trouble = await checkpoints.verify(id, this.#stop.signal);
        if (trouble === undefined) {
          checkpoint = id;
          break;
        }
        log(`checkpoint ${id} is damaged: ${trouble}`);
      }
    } catch (error) {
      log(`cannot choose a checkpoint: ${errorOf(error).message}`);
      this.dispatch({ type: "declined", now: steadyNow() });
      return;
    }
    this.dispatch({ type: "chosen", now: steadyNow(), checkpoint });
  }

  /** Fencing and restart are one operation: nobody comes between them. */
  async #restart({ checkpoint, avoid }: Extract<ReactiveEffect, { do: "restart" }>): Promise<void> {
    const { operations, checkpoints, verbs, alerted } = this.#options;
    const what = `restart from ${checkpoint} (reactive policy)`;
    const list = await checkpoints.complete(this.#stop.signal);
    const vms = list.find((c) => c.id === checkpoint)?.vms ?? [];
    let silent = false;
    const { ended } = operations.begin({ verb: "restart", by: "reactive", what }, async (run) => {
      const fenced = await verbs.fence(vms, run.signal).catch((error: unknown) => {
        silent = error instanceof HostUnanswering;
        throw error;
      });
      if (fenced.allLive) {
        this.dispatch({ type: "alive" });
        return {
          schemaVersion: 1,
          verb: "restart",
          outcome: "done",
          message: "all VMs live: nothing was restarted",
        };
      }
      this.dispatch({ type: "fenced" });
      // No VM of the checkpoint can be on a silent host that did not count for the fencing.
      const gone = [...fenced.switchedOff, ...fenced.silent];
      await checkpoints.endCutOff(gone, run);
      return await checkpoints.restart({ checkpoint, gone, avoid: [...avoid, ...alerted()] }, run);
    });
    const view = await ended;
    const { exitCode } = view;
    const now = steadyNow();
    const cause = causeOf(view);
    if (exitCode === 0) this.dispatch({ type: "restarted", now });
    // Another controller has the lock.
    else if (this.#state.phase.name === "fencing" && exitCode === ExitCode.refused)
      this.dispatch({ type: "declined", now });
    else if (this.#state.phase.name === "fencing")
      this.dispatch({ type: "fence-failed", now, cause, silent });
    else this.dispatch({ type: "restart-failed", now, cause, needsOperator: exitCode === 6 });
  }

  #keep(): void {
    const { attempts, seen } = this.#state;
    const text = JSON.stringify({ schemaVersion: 1, attempts, seen: [...seen].sort() });
    if (text === this.#written) return;
    const temporary = `${this.#options.file}.${process.pid}.tmp`;
    try {
      writeFileSync(temporary, `${text}\n`, { mode: 0o600, flush: true });
      renameSync(temporary, this.#options.file);
      this.#written = text;
    } catch (error) {
      // Tried again at the next event; only a server that is started again meanwhile knows less.
      this.#options.log(`cannot write ${this.#options.file}: ${errorOf(error).message}`);
    }
  }
}

/** Why an operation did not do what it was for. */
function causeOf({ error, report }: OperationView): string {
  const message = error?.message ?? (report as { message?: string } | null)?.message ?? "no reason given";
  return error?.hint === undefined ? message : `${message} (${error.hint})`;
}

function readKept(file: string): { attempts: number; seen: string[] } | undefined {
  try {
    return kept.parse(JSON.parse(readFileSync(file, "utf8")));
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw new SymvirtError("internal", `the policy's file ${file} is damaged`, {
      hint: "move it away: the policy then begins anew and takes a VM for dead only after it has seen it alive",
      cause,
    });
  }
}

/** The state in a sentence, for log and status. */
export function describe(state: ReactiveState): string {
  const { phase, attempts, failures } = state;
  switch (phase.name) {
    case "watching":
      if (failures.count === 0) return "reactive policy: watching";
      return `reactive policy: watching; ${failures.count} checkpoints in a row failed, the last: ${failures.cause}`;
    case "checkpointing":
      return "reactive policy: makes a checkpoint";
    case "choosing":
    case "fencing":
      return `reactive policy: ${phase.name} after ${phase.deaths.join("; ")}`;
    case "restarting":
      return `reactive policy: restart ${attempts} from ${phase.checkpoint}`;
    case "waiting":
      return `reactive policy: waits until ${new Date(phase.until).toISOString()}: ${phase.deaths.join("; ")}`;
    case "stuck":
      return `reactive policy: a person must act: ${phase.reason}`;
  }
}
