/** What both checkpoint and restart do to all VMs of their set. Each may be repeated. */
import type { Fleet } from "../fleet.js";
import type { CycleSet } from "../state/journal.js";
import type { SetOp } from "./set-cycle.js";

export type SetVm = CycleSet["vms"][number];

/** The work behind the ops of one verb. */
export interface SetOps {
  /** Does one op; resolves when its effect is there. */
  run(op: SetOp, signal: AbortSignal): Promise<void>;
}

export class AllVms {
  readonly fleet: Fleet;
  readonly vms: readonly SetVm[];

  constructor(fleet: Fleet, vms: readonly SetVm[]) {
    this.fleet = fleet;
    this.vms = vms;
  }

  driver({ vm, host }: SetVm) {
    return this.fleet.driver(vm, host);
  }

  /** All at once; waits for all of them also when one fails, so that nothing goes on behind the caller's back. */
  async each(work: (vm: SetVm) => Promise<void>): Promise<void> {
    const ends = await Promise.allSettled(this.vms.map(work));
    const failed = ends.find((end) => end.status === "rejected");
    if (failed !== undefined) throw failed.reason;
  }

  /** Joins the wires of a VM, wherever it is now. */
  async join(vm: SetVm, signal: AbortSignal): Promise<void> {
    const driver = this.driver(vm);
    await driver.setLinks(await driver.nics(signal), true, signal);
    await driver.announce(signal);
  }

  async attach(signal: AbortSignal): Promise<void> {
    await this.each(async (vm) => {
      for (const { tag, bus, card } of cardsOf(this.fleet, vm))
        await this.driver(vm).attach(tag, bus, card, signal);
    });
  }
}

/** The cards a VM gets, as its host offers them. */
export function cardsOf({ cluster }: Fleet, { host, cards }: SetVm) {
  return cards.flatMap(({ tag, bus, card }) => {
    const offered = cluster.hosts[host]?.cards[card];
    return offered === undefined ? [] : [{ tag, bus, name: card, card: offered }];
  });
}
