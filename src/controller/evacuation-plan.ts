/** Which VMs leave a host, where each goes, in which order, and what stands against it; nothing is touched. */
import { SymvirtError } from "../errors.js";
import { anySignal } from "../signals.js";
import type { VmFacts } from "../vmm/driver.js";
import { fit, type Leaver, type Room, whyNot } from "./evacuation-fit.js";
import { type Finding, Findings } from "./findings.js";
import type { Fleet } from "./fleet.js";
import type { MigrationLimits } from "./limits.js";
import { interruptedWords } from "./interrupted.js";
import { greetAgents, knownHost, planMigration } from "./plan.js";
import { jobsOn } from "./plan-strategy.js";
import type { Journal } from "./state/journal.js";
import type { Strategy } from "./strategy.js";
import { takenCards } from "./taken-cards.js";

export interface PlannedMove {
  vm: string;
  from: string;
  to: string;
}

export interface EvacuationPlan {
  host: string;
  /** In the order they are made; empty when the host has no VM, or no choice of hosts was found. */
  moves: PlannedMove[];
  findings: Finding[];
}

export interface EvacuationQuestion {
  fleet: Fleet;
  journal: Journal;
  host: string;
  /** Hosts the VMs may go to, the first that fits first; absent: all others, the one with the most memory first. */
  to?: readonly string[];
  strategy?: Strategy;
  limits?: MigrationLimits;
  signal: AbortSignal;
}

type Located = Map<string, VmFacts>;

/** Makes the plan. Throws "usage" for names that are not in the cluster file; everything else becomes a finding. */
export async function planEvacuation(question: EvacuationQuestion): Promise<EvacuationPlan> {
  const { fleet, journal, host, signal } = question;
  knownHosts(question);
  const findings = new Findings();
  const plan = { host, moves: [], findings: findings.list };
  const interrupted = journal.interrupted();
  if (interrupted !== undefined) {
    findings.refuse(interruptedWords(interrupted), "run `symvirt abort`");
    return plan;
  }
  const located = await locateThere(fleet, host, signal, findings);
  if (located.size === 0) return plan;
  // Only their jobs are asked for here; a silent agent is the single migration's finding.
  await greetAgents(fleet, Object.keys(fleet.cluster.vms), signal);
  const order = orderOf(fleet, located);
  const rooms = await roomsOf(question, findings);
  const places = choosePlaces(fleet, { order, located, rooms, inOrder: question.to !== undefined }, findings);
  if (places === undefined) return plan;
  const moves = order.map((vm) => ({ vm, from: host, to: places.hosts.get(vm) ?? "" }));
  await planMoves(question, moves, places.getCards, findings);
  return { ...plan, moves };
}

function knownHosts({ fleet, host, to }: EvacuationQuestion): void {
  knownHost(fleet.cluster, host);
  for (const other of to ?? []) {
    knownHost(fleet.cluster, other);
    if (other === host) throw new SymvirtError("usage", `${host} cannot be evacuated to itself`);
  }
  if (to?.length === 0) throw new SymvirtError("usage", `no host is given that ${host} may be evacuated to`);
}

/** The VMs on the host. One that should be there and does not answer cannot be moved, so nothing is. */
async function locateThere(
  fleet: Fleet,
  host: string,
  signal: AbortSignal,
  findings: Findings,
): Promise<Located> {
  const located: Located = new Map();
  const limit = anySignal([signal, AbortSignal.timeout(fleet.cluster.deadlines.prepare)]);
  await Promise.all(
    Object.keys(fleet.cluster.vms).map(async (vm) => {
      try {
        const found = await fleet.locate(vm, limit);
        await fleet.follow(vm, found.host);
        if (found.host === host) located.set(vm, found.facts);
      } catch (error) {
        signal.throwIfAborted();
        if (fleet.placement.of(vm).host === host) findings.take(error);
      }
    }),
  );
  return located;
}

/**
 * VMs without their card first: their ranks get one at the destination, and until then other VMs of the job cannot
 * be moved. The rest by job, VMs of one job one after the other, as the cluster file lists them.
 */
function orderOf(fleet: Fleet, located: Located): string[] {
  const names = Object.keys(fleet.cluster.vms).filter((vm) => located.has(vm));
  const ordered: string[] = [];
  const add = (vm: string) => {
    if (!ordered.includes(vm)) ordered.push(vm);
  };
  for (const vm of names) if (lacking(fleet, vm, located).length > 0) add(vm);
  for (const vm of names) {
    add(vm);
    const jobs = new Set(jobsOn(vm, fleet.roster.jobs()).map((j) => j.job));
    for (const other of names)
      if (jobsOn(other, fleet.roster.jobs()).some((j) => jobs.has(j.job))) add(other);
  }
  return ordered;
}

/** Tags of its slots that have no card now. */
function lacking(fleet: Fleet, vm: string, located: Located): string[] {
  const tags = Object.keys(fleet.cluster.vms[vm]?.cards ?? {});
  return tags.filter((tag) => located.get(vm)?.cards.includes(tag) !== true);
}

/** The hosts that could take a VM, with what is free there. A note for each that does not answer. */
async function roomsOf({ fleet, host, to, signal }: EvacuationQuestion, findings: Findings): Promise<Room[]> {
  const { hosts, deadlines } = fleet.cluster;
  const candidates = [...new Set(to ?? Object.keys(hosts).filter((name) => name !== host))];
  const limit = anySignal([signal, AbortSignal.timeout(deadlines.prepare)]);
  const rooms = await Promise.all(
    candidates.map(async (name): Promise<Room | undefined> => {
      try {
        const memoryBytes = await fleet.vmm.freeMemory(name, limit);
        const taken = takenCards(fleet, name);
        const free = Object.entries(hosts[name]?.cards ?? {}).filter(([card]) => !taken.has(card));
        return { host: name, memoryBytes, cards: free.map(([, { driver }]) => driver) };
      } catch (error) {
        signal.throwIfAborted();
        const why = error instanceof SymvirtError ? error.message : `host ${name} does not answer in time`;
        findings.note(`${why}: no VM goes there`);
        return undefined;
      }
    }),
  );
  return rooms.filter((room) => room !== undefined);
}

interface PlaceQuestion {
  order: readonly string[];
  located: Located;
  rooms: readonly Room[];
  inOrder: boolean;
}

/** A host for each VM, and which VMs have a card in every slot there. */
function choosePlaces(
  fleet: Fleet,
  { order, located, rooms, inOrder }: PlaceQuestion,
  findings: Findings,
): { hosts: Map<string, string>; getCards: boolean } | undefined {
  const driverOf = (vm: string, tag: string): string => {
    const place = fleet.placement.of(vm);
    const slot = fleet.cluster.vms[vm]?.cards[tag]?.card ?? "";
    const first = fleet.cluster.vms[vm]?.host ?? "";
    const now = fleet.cluster.hosts[place.host]?.cards[place.cards[tag] ?? slot];
    return (now ?? fleet.cluster.hosts[first]?.cards[slot])?.driver ?? "";
  };
  const leaverOf = (vm: string, withEmpty: boolean): Leaver => {
    const facts = located.get(vm);
    const empty = withEmpty ? lacking(fleet, vm, located) : [];
    const tags = [
      ...(facts?.cards ?? []).filter((tag) => fleet.cluster.vms[vm]?.cards[tag] !== undefined),
      ...empty,
    ];
    const needs = tags.map((tag) => driverOf(vm, tag)).filter((driver) => driver !== "");
    return { vm, needs, memoryBytes: facts?.memoryBytes ?? 0 };
  };
  // A VM without its card gets one if there is one for all.
  const full = order.map((vm) => leaverOf(vm, true));
  const best = fit(full, rooms, { inOrder });
  if (best !== undefined) return { hosts: best, getCards: true };
  const leavers = order.map((vm) => leaverOf(vm, false));
  const found = fit(leavers, rooms, { inOrder });
  if (found !== undefined) return { hosts: found, getCards: false };
  refusePlaces(leavers, rooms, findings);
  return undefined;
}

function refusePlaces(leavers: readonly Leaver[], rooms: readonly Room[], findings: Findings): void {
  const homeless = leavers.filter((l) => rooms.every((room) => whyNot(l, room) !== undefined));
  for (const leaver of homeless) {
    const reasons = rooms.map((room) => whyNot(leaver, room)).join("; ");
    findings.refuse(
      `${leaver.vm} has nowhere to go: ${reasons || "there is no other host"}`,
      "free a card or memory on another host, or add a host",
    );
  }
  if (homeless.length > 0) return;
  const all = rooms.map(
    (r) => `${r.host}: ${r.cards.length} free cards, ${Math.round(r.memoryBytes / 2 ** 20)} MiB`,
  );
  findings.refuse(
    `${leavers.map((l) => l.vm).join(", ")} do not fit on the other hosts together (${all.join("; ")})`,
    "free a card or memory on another host, or move some of them by hand with `symvirt migrate`",
  );
}

/** Plans each migration as if those before it had been made. */
async function planMoves(
  { fleet, journal, strategy, limits, signal }: EvacuationQuestion,
  moves: readonly PlannedMove[],
  getCards: boolean,
  findings: Findings,
): Promise<void> {
  const backBefore = new Set<string>();
  for (const { vm, to } of moves) {
    const plan = await planMigration({
      ...{ fleet, journal, vm, to, signal, backBefore },
      ...(strategy === undefined ? {} : { strategy }),
      ...(limits === undefined ? {} : { limits }),
    });
    for (const finding of plan.findings)
      findings.list.push({ ...finding, text: `${vm} to ${to}: ${finding.text}` });
    if (getCards) backBefore.add(vm);
  }
}
