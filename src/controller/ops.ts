/** The work behind each op of a cycle, on the VMs' drivers. Each takes an AbortSignal and may be repeated. */
import { SymvirtError } from "../errors.js";
import type { MigrationProgress } from "../vmm/driver.js";
import type { Card } from "./cluster-file.js";
import type { OpName } from "./cycle.js";
import { sentence } from "./errors-in-words.js";
import type { Fleet } from "./fleet.js";
import type { MigrationLimits } from "./limits.js";
import type { CycleTarget } from "./state/journal.js";

export interface OpContext {
  fleet: Fleet;
  target: CycleTarget;
  limits: MigrationLimits;
  onMigration: (progress: MigrationProgress) => void;
}

export class Ops {
  readonly #context: OpContext;
  #uri = "";
  /** Of the last completed migration. */
  migrated: MigrationProgress | undefined;

  constructor(context: OpContext) {
    this.#context = context;
  }

  /** Does one op; resolves when its effect is there. */
  async run(op: OpName, signal: AbortSignal): Promise<void> {
    const { fleet, target } = this.#context;
    const { vm, from, to } = target;
    const at = (host: string) => fleet.driver(vm, host);
    switch (op) {
      case "launch-destination":
        return await this.#launch(to, signal);
      case "detach-source":
        for (const { tag, source } of target.cards) if (source !== null) await at(from).detach(tag, signal);
        return;
      case "migrate":
        this.migrated = await this.#migrate(from, signal);
        return;
      case "resume-destination":
        await this.#resumeThere(signal);
        return await fleet.follow(vm, to);
      case "attach-destination":
        return await this.#attach(to, signal);
      case "commit": {
        const cards = Object.fromEntries(
          target.cards.flatMap((c) => (c.destination === null ? [] : [[c.tag, c.destination]])),
        );
        // In place: the cards it had before stay.
        const kept = from === to ? fleet.placement.of(vm).cards : {};
        fleet.placement.write(vm, { host: to, cards: { ...kept, ...cards } });
        if (from === to) return;
        // The old process is left in "postmigrate"; it must be gone before anyone could resume it by hand.
        await at(from).quit(signal);
        return await fleet.drop(vm, from);
      }
      case "end-destination":
        // A hold moves nothing: its "destination" is the VM itself.
        if (to === from) return;
        await fleet.drop(vm, to);
        if (fleet.gone.has(to)) return;
        return await fleet.vmm.end(vm, to, signal);
      case "resume-source":
        await at(from).resume(signal, { evenIfMoved: true });
        return await fleet.follow(vm, from);
      case "attach-source":
        return await this.#attach(from, signal);
      case "detach-destination":
        for (const { tag, destination } of target.cards)
          if (destination !== null) await at(to).detach(tag, signal);
        return;
      case "relaunch-source":
        await fleet.drop(vm, from);
        await fleet.vmm.end(vm, from, signal);
        return await this.#launch(from, signal);
      case "return":
        await this.#migrate(to, signal);
        return;
    }
  }

  async #launch(host: string, signal: AbortSignal): Promise<void> {
    const { fleet, target } = this.#context;
    await fleet.vmm.launchIncoming(target.vm, host, signal);
    this.#uri = await fleet.driver(target.vm, host).listen(signal);
  }

  async #migrate(from: string, signal: AbortSignal): Promise<MigrationProgress> {
    const { fleet, target, limits, onMigration } = this.#context;
    const { parkAfterMs: _, ...ofVmm } = limits;
    return await fleet
      .driver(target.vm, from)
      .migrate({ uri: this.#uri, ...ofVmm, onProgress: onMigration, signal });
  }

  /**
   * A resume that was given up, or whose answer was lost, may have had its effect: a VM that has run there must never go
   * on from its source's older memory. So it fails only when the VM is seen not to run.
   */
  async #resumeThere(signal: AbortSignal): Promise<void> {
    const { fleet, target } = this.#context;
    const there = fleet.driver(target.vm, target.to);
    try {
      await there.resume(signal);
    } catch (error) {
      let status: string;
      try {
        ({ status } = await there.inspect(AbortSignal.timeout(fleet.cluster.deadlines.prepare)));
      } catch {
        throw new SymvirtError(
          "needsOperator",
          `${sentence(error)}; and nobody knows whether ${target.vm} runs on ${target.to}`,
          { cause: error, unsettled: true },
        );
      }
      if (status !== "running") throw error;
    }
  }

  async #attach(host: string, signal: AbortSignal): Promise<void> {
    const { fleet, target } = this.#context;
    for (const [tag, { bus, card }] of cardsAt(fleet, target, host))
      await fleet.driver(target.vm, host).attach(tag, bus, card, signal);
  }
}

/** The cards the VM gets on this host, by tag. */
export function cardsAt(
  fleet: Fleet,
  target: CycleTarget,
  host: string,
): Map<string, { bus: string; card: Card }> {
  return new Map(
    target.cards.flatMap((slot): [string, { bus: string; card: Card }][] => {
      const name = host === target.to ? slot.destination : slot.source;
      if (name === null) return [];
      const card = fleet.cluster.hosts[host]?.cards[name];
      if (card === undefined)
        throw new SymvirtError("usage", `host ${host} has no card "${name}"`, {
          hint: "the cluster file was changed while a cycle was open",
        });
      return [[slot.tag, { bus: slot.bus, card }]];
    }),
  );
}
