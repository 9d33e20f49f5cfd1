/**
 * The paper's script steps, one by one: hold all ranks (`waitAll`), then detach, migrate and attach as the script
 * likes, then let them go (`signal`). Unlike `migrate` nothing is undone by itself when a step fails: the script
 * decides, and `signal` or `symvirt abort` ends the hold.
 */
import { SymvirtError } from "../errors.js";
import { after, anySignal } from "../signals.js";
import type { Cluster } from "./cluster-file.js";
import { judge, type Verdict } from "./conditions.js";
import type { Condition } from "./cycle.js";
import { sentence } from "./errors-in-words.js";
import { Findings } from "./findings.js";
import type { Fleet } from "./fleet.js";
import { limitsInForce } from "./limits.js";
import { nextCycle } from "./next-cycle.js";
import { Ops } from "./ops.js";
import { greetAgents } from "./plan.js";
import { checkJobs } from "./plan-jobs.js";
import { Rendezvous } from "./rendezvous.js";
import type { CycleReport } from "./report.js";
import type { Session } from "./session.js";
import type { CycleTarget } from "./state/journal.js";

export class Hold {
  readonly target: CycleTarget;
  readonly #session: Session;
  readonly #meeting: Rendezvous;
  #step = 0;
  #look: () => void = () => undefined;
  #broken: unknown;

  private constructor(session: Session, target: CycleTarget) {
    this.#session = session;
    this.target = target;
    this.#meeting = new Rendezvous(session.fleet, target, {
      quiet: (job, step) => session.journal.append({ kind: "quiet", cycle: target.cycle, step, job }),
      ready: (job, step) => session.journal.append({ kind: "ready", cycle: target.cycle, step, job }),
      changed: () => this.#look(),
      trouble: (cause) => this.#break(new SymvirtError("needsOperator", cause)),
      failed: (error) => this.#break(error),
    });
  }

  /** Parks every rank of every job and resolves when all VMs report SymvirtWait: no user of any card is left. */
  static async begin(session: Session, signal: AbortSignal): Promise<Hold> {
    const { fleet, journal, cluster } = session;
    const names = Object.keys(cluster.vms);
    const findings = new Findings();
    const open = journal.interrupted();
    if (open !== undefined)
      findings.refuse(`cycle ${open.target.cycle} was interrupted`, "run `symvirt abort`");
    for (const vm of names) {
      const { host } = await fleet.locate(vm, signal);
      await fleet.follow(vm, host);
    }
    for (const error of (await greetAgents(fleet, names, signal)).values()) findings.take(error);
    const found = names.flatMap((vm) => checkJobs(vm, fleet.roster.jobs(), findings));
    const jobs = [...new Map(found.map((j) => [j.job, j])).values()];
    const refused = findings.error("the jobs cannot be held");
    if (refused !== undefined) throw refused;
    const [vm = ""] = names;
    const cycle = nextCycle(journal.lastCycle(), fleet.roster, jobs);
    const host = fleet.hostOf(vm);
    const hold = new Hold(session, {
      ...{ cycle, vm, from: host, to: host, cards: [], jobs },
      ...{ strategy: "park", leave: true, comeBack: true },
    });
    journal.append({ kind: "begin", pid: process.pid, verb: "hold", target: hold.target });
    hold.#meeting.open();
    await hold.#order("park", "parked", signal);
    await hold.#until(() => waitingVms(fleet, names), cluster.deadlines.park, "wait", signal);
    return hold;
  }

  /** Unplugs the card of a tag from every VM (or one). */
  async detach(tag: string, vm: string | undefined, signal: AbortSignal): Promise<void> {
    const { fleet } = this.#session;
    this.#journal("detach");
    for (const name of this.#vmsWith(tag, vm))
      await fleet.driver(name, fleet.hostOf(name)).detach(tag, this.#within("detach", signal));
  }

  /** Plugs a card of the VM's present host in under a tag, in every VM (or one). */
  async attach(tag: string, device: string, vm: string | undefined, signal: AbortSignal): Promise<void> {
    const { fleet, cluster } = this.#session;
    this.#journal("attach");
    for (const name of this.#vmsWith(tag, vm)) {
      const host = fleet.hostOf(name);
      const card = cluster.hosts[host]?.cards[device];
      const bus = cluster.vms[name]?.cards[tag]?.bus;
      if (card === undefined || bus === undefined)
        throw new SymvirtError("usage", `host ${host} of ${name} has no card "${device}"`);
      await fleet.driver(name, host).attach(tag, bus, card, this.#within("attach", signal));
      const place = fleet.placement.of(name);
      fleet.placement.write(name, { host, cards: { ...place.cards, [tag]: device } });
    }
  }

  /** Moves a VM whose cards have been detached. On failure it runs on its source, and the error says why. */
  async migrate(vm: string, to: string, signal: AbortSignal): Promise<CycleReport> {
    const { fleet, cluster } = this.#session;
    const from = fleet.hostOf(vm);
    const startedAt = new Date().toISOString();
    const began = performance.now();
    const target = { ...this.target, vm, from, to };
    const limits = limitsInForce(cluster);
    const ops = new Ops({ fleet, target, limits, onMigration: () => undefined });
    const { cycle } = this.target;
    this.#session.journal.append({ kind: "move", cycle, vm, from, to });
    this.#journal("pre-copy");
    let arrived = false;
    try {
      await ops.run("launch-destination", this.#within("prepare", signal));
      await ops.run("migrate", this.#within("migrate", signal));
      arrived = true;
      this.#journal("switch-over");
      await ops.run("resume-destination", this.#within("attach", signal));
    } catch (error) {
      await this.#stay(ops, arrived, error);
      throw error;
    }
    await ops.run("commit", this.#within("prepare", signal));
    const { transferred = 0, downtimeMs = 0 } = ops.migrated ?? {};
    return {
      schemaVersion: 1,
      cycle: this.target.cycle,
      verb: "migrate",
      strategy: "park",
      outcome: "done",
      message: `${vm} runs on ${to}, its ranks are held`,
      vm,
      from,
      to,
      startedAt,
      totalMs: Math.round(performance.now() - began),
      phases: [],
      ranks: [],
      holds: [],
      preCopy: { transferredBytes: transferred, downtimeMs },
    };
  }

  /** The VM runs on its source again after a move that failed. Throws both causes when it does not. */
  async #stay(ops: Ops, arrived: boolean, first: unknown): Promise<void> {
    // It may yet arrive: nothing may be ended or resumed before somebody has looked.
    const isOpen = first instanceof SymvirtError && first.unsettled;
    if (isOpen) return;
    const signal = AbortSignal.timeout(this.#session.cluster.deadlines.prepare);
    try {
      this.#journal("undo:end-destination");
      await ops.run("end-destination", signal);
      if (arrived) await ops.run("resume-source", signal);
    } catch (error) {
      throw new SymvirtError("needsOperator", `${sentence(first)}, and then ${sentence(error)}`, {
        hint: "put that right, then run `symvirt abort`",
        cause: first,
      });
    }
  }

  #within(name: keyof Cluster["deadlines"], signal: AbortSignal): AbortSignal {
    const ms = this.#session.cluster.deadlines[name];
    const late = new SymvirtError("deadline", `the deadline "${name}" (${ms / 1000} s) passed`);
    return anySignal([signal, after(ms, late)]);
  }

  /** Lets all ranks run over openib again and resolves when they do. */
  async signal(signal: AbortSignal): Promise<void> {
    const { journal } = this.#session;
    await this.#order("run-openib", "running", signal);
    const message = "the ranks run over openib";
    journal.append({ kind: "end", cycle: this.target.cycle, outcome: "done", message, unfinished: false });
    this.close();
  }

  close(): void {
    this.#meeting.close();
  }

  #vmsWith(tag: string, vm: string | undefined): string[] {
    const { vms } = this.#session.cluster;
    const names = Object.keys(vms).filter((n) => vms[n]?.cards[tag] !== undefined && (vm ?? n) === n);
    if (names.length > 0) return names;
    throw new SymvirtError("usage", `no VM${vm === undefined ? "" : ` "${vm}"`} has a card slot "${tag}"`);
  }

  async #order(want: "park" | "run-openib", condition: Condition, signal: AbortSignal): Promise<void> {
    this.#step++;
    this.#journal(want === "park" ? "drain" : "re-init");
    this.#meeting.order(want, this.#step);
    const { park, resume } = this.#session.cluster.deadlines;
    const look = () => judge(condition, this.#meeting.view(this.#step, new Map()));
    await this.#until(look, want === "park" ? park : resume, want, signal);
  }

  #journal(phase: string): void {
    const { cycle } = this.target;
    this.#session.journal.append({ kind: "phase", cycle, event: "ok", phase, step: this.#step, effects: [] });
  }

  #break(error: unknown): void {
    this.#broken = error;
    this.#look();
  }

  async #until(look: () => Verdict, deadlineMs: number, what: string, signal: AbortSignal): Promise<void> {
    const limit = anySignal([signal, AbortSignal.timeout(deadlineMs)]);
    let onAbort = (): void => undefined;
    try {
      await new Promise<void>((resolve, reject) => {
        const check = () => {
          const [lost] = this.#meeting.takeLost();
          if (this.#broken !== undefined) return reject(this.#broken);
          if (lost !== undefined) return reject(new SymvirtError("needsOperator", lost));
          const verdict = look();
          if (verdict.met === true) return resolve();
          if (verdict.met === "failed")
            return reject(new SymvirtError("needsOperator", `${what}: ${verdict.why}`));
          if (!limit.aborted) return;
          const late = verdict.late.slice(0, 6).join("; ");
          reject(new SymvirtError(signal.aborted ? "interrupted" : "deadline", `${what}: ${late}`));
        };
        this.#look = check;
        onAbort = check;
        limit.addEventListener("abort", check, { once: true });
        check();
      });
    } finally {
      // Also from the signal: it may fire long after the hold has ended.
      limit.removeEventListener("abort", onAbort);
      this.#look = () => undefined;
    }
  }
}

/** The SymVirt wait of every VM. */
function waitingVms(fleet: Fleet, vms: readonly string[]): Verdict {
  const late = vms
    .filter((vm) => fleet.roster.state(vm)?.released !== true)
    .map((vm) => `the card of ${vm} is still held`);
  return late.length === 0 ? { met: true } : { met: false, late };
}
