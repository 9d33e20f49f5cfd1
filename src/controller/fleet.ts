/** The connections of one controller: a driver per VM and host, a guest link per VM, and where each VM is. */
import { SymvirtError } from "../errors.js";
import type { VmDriver, VmFacts } from "../vmm/driver.js";
import type { Cluster } from "./cluster-file.js";
import { GuestLink, type LevelMessage } from "./guest-link.js";
import { Roster } from "./roster.js";
import type { Placement } from "./state/placement.js";
import type { Vmm } from "./vmm.js";

export interface LinkTiming {
  helloEveryMs?: number;
  silenceMs?: number;
  redialMs?: number;
  /** Of a meeting: after an order that is not done. */
  tellAgainMs?: number;
}

export class Fleet {
  readonly cluster: Cluster;
  readonly vmm: Vmm;
  readonly placement: Placement;
  readonly roster = new Roster();
  /** Hosts that are off, by an operator's word or a fence's: nothing runs there, and nobody asks them. */
  readonly gone = new Set<string>();
  /** Told again to a VM's agent after every hello; a cycle sets it. */
  level: (vm: string) => Iterable<LevelMessage> = () => [];
  readonly timing: LinkTiming;
  readonly #drivers = new Map<string, VmDriver>();
  readonly #links = new Map<string, GuestLink>();
  readonly #hosts = new Map<string, string>();
  readonly #complaints = new Map<string, string[]>();
  #closed = false;

  constructor(cluster: Cluster, vmm: Vmm, placement: Placement, timing: LinkTiming = {}) {
    this.cluster = cluster;
    this.vmm = vmm;
    this.placement = placement;
    this.timing = timing;
  }

  driver(vm: string, host: string): VmDriver {
    const key = `${vm}@${host}`;
    const driver = this.#drivers.get(key) ?? this.vmm.driver(vm, host);
    this.#drivers.set(key, driver);
    return driver;
  }

  /** Where the VM runs, asked of the VMM: the recorded host first, then all others. */
  async locate(vm: string, signal: AbortSignal): Promise<{ host: string; facts: VmFacts }> {
    const recorded = this.placement.of(vm).host;
    const others = Object.keys(this.cluster.hosts).filter((h) => h !== recorded);
    const found: { host: string; facts: VmFacts }[] = [];
    let first: unknown;
    for (const host of [recorded, ...others]) {
      try {
        const facts = await this.driver(vm, host).inspect(signal);
        if (facts.status === "running") return { host, facts };
        found.push({ host, facts });
      } catch (error) {
        if (signal.aborted) throw tooLate(vm, host, error);
        if (host === recorded) first = error;
      }
    }
    const [only] = found;
    if (only !== undefined) return only;
    if (first instanceof SymvirtError) throw first;
    throw new SymvirtError("unreachable", `no host has a VMM of ${vm} that answers`, {
      hint: `start ${vm}, or check its qmp path in the cluster file`,
      cause: first,
    });
  }

  /** The guest link of a VM on the host where it is; started at the first call, but not after `close`. */
  link(vm: string): GuestLink {
    const there = this.#links.get(vm);
    if (there !== undefined) return there;
    const link = new GuestLink({
      vm,
      dial: (signal) => this.driver(vm, this.hostOf(vm)).openChannel(signal),
      level: () => this.level(vm),
      ...this.timing,
    });
    link.on("state", (state) => {
      const complaints = this.roster.update(vm, state);
      if (complaints.length > 0)
        this.#complaints.set(vm, [...(this.#complaints.get(vm) ?? []), ...complaints]);
    });
    // A VM's channel serves one client: a link that nobody will stop would shut out all later ones.
    if (this.#closed) return link;
    this.#links.set(vm, link);
    return link.start();
  }

  links(): GuestLink[] {
    return [...this.#links.values()];
  }

  /** What the guests said that cannot be: a rank of another VM, another job size. */
  complaints(): string[] {
    return [...this.#complaints.values()].flat();
  }

  /** Where the guest link of a VM goes. */
  hostOf(vm: string): string {
    return this.#hosts.get(vm) ?? this.placement.of(vm).host;
  }

  /** The VM is on this host now: its guest link is made anew if it was elsewhere. */
  async follow(vm: string, host: string): Promise<void> {
    const before = this.hostOf(vm);
    this.#hosts.set(vm, host);
    const link = this.#links.get(vm);
    if (link === undefined || before === host) return;
    await link.stop();
    this.roster.forget(vm);
    link.start();
  }

  /** Forgets the connection to a VMM that has ended. */
  async drop(vm: string, host: string): Promise<void> {
    const key = `${vm}@${host}`;
    await this.#drivers.get(key)?.end();
    this.#drivers.delete(key);
  }

  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all([...this.#links.values()].map((link) => link.stop()));
    await Promise.all([...this.#drivers.values()].map((driver) => driver.end()));
    this.#links.clear();
    this.#drivers.clear();
  }
}

function tooLate(vm: string, host: string, error: unknown): SymvirtError {
  if (error instanceof SymvirtError) {
    const hint = error.hint === undefined ? {} : { hint: error.hint };
    return new SymvirtError("unreachable", error.message, { cause: error, ...hint });
  }
  return new SymvirtError("unreachable", `the VMM of ${vm} on ${host} does not answer in time`, {
    cause: error,
  });
}
