/**
 * Everything about a migration that can be known before anything is touched. All refusals are collected, so
 * that an operator does not meet them one by one.
 */
import { SymvirtError } from "../errors.js";
import { anySignal } from "../signals.js";
import type { VmFacts } from "../vmm/driver.js";
import type { Cluster } from "./cluster-file.js";
import { interruptedWords } from "./interrupted.js";
import { type Finding, Findings } from "./findings.js";
import type { Fleet } from "./fleet.js";
import { changesRoutes } from "./movers.js";
import { nextCycle } from "./next-cycle.js";
import { limitsInForce, type MigrationLimits } from "./limits.js";
import { checkHolders, checkJobs } from "./plan-jobs.js";
import { chooseStrategy, jobsOn, noteRanks, planRoutes, rankList, wantedStrategy } from "./plan-strategy.js";
import type { CycleTarget, Journal } from "./state/journal.js";
import type { Strategy } from "./strategy.js";
import { suggestion } from "./suggest.js";
import { takenCards } from "./taken-cards.js";

export interface MigrationPlan {
  vm: string;
  from: string;
  to: string;
  strategy: Strategy;
  /** In force: the command's, else the cluster file's. */
  limits: MigrationLimits;
  /** Undefined when something refuses. */
  target: CycleTarget | undefined;
  memoryBytes: number | undefined;
  findings: Finding[];
  /** What would happen, a line a step. */
  steps: string[];
}

export function knownVm(cluster: Cluster, vm: string): void {
  if (!Object.hasOwn(cluster.vms, vm))
    throw new SymvirtError("usage", `there is no VM "${vm}"${suggestion(vm, Object.keys(cluster.vms))}`);
}

export function knownHost(cluster: Cluster, host: string): void {
  if (!Object.hasOwn(cluster.hosts, host))
    throw new SymvirtError(
      "usage",
      `there is no host "${host}"${suggestion(host, Object.keys(cluster.hosts))}`,
    );
}

/** Waits until each VM's agent has said hello and its state; returns the silent ones with the reason. */
export async function greetAgents(
  fleet: Fleet,
  vms: readonly string[],
  signal: AbortSignal,
): Promise<Map<string, SymvirtError>> {
  const silent = new Map<string, SymvirtError>();
  const limit = anySignal([signal, AbortSignal.timeout(fleet.cluster.deadlines.hello)]);
  await Promise.all(
    vms.map(async (vm) => {
      try {
        await fleet.link(vm).query(limit);
      } catch (error) {
        signal.throwIfAborted();
        if (!(error instanceof SymvirtError)) throw error;
        silent.set(vm, error);
      }
    }),
  );
  return silent;
}

export interface PlanRequest {
  fleet: Fleet;
  journal: Journal;
  vm: string;
  to: string;
  /** Absent: the cluster file's, else the default. */
  strategy?: Strategy;
  limits?: MigrationLimits;
  /** VMs that get a card before this migration begins: their ranks are not away any more by then. */
  backBefore?: ReadonlySet<string>;
  signal: AbortSignal;
}

/** Makes the plan. Throws "usage" for unknown names; everything else becomes a finding. */
export async function planMigration({
  fleet,
  journal,
  vm,
  to,
  signal,
  strategy: asked,
  limits: askedLimits,
  backBefore,
}: PlanRequest): Promise<MigrationPlan> {
  const { cluster } = fleet;
  knownVm(cluster, vm);
  knownHost(cluster, to);
  const findings = new Findings();
  const limits = limitsInForce(cluster, askedLimits);
  const interrupted = journal.interrupted();
  if (interrupted !== undefined) {
    findings.refuse(interruptedWords(interrupted), "run `symvirt abort`");
    return {
      vm,
      from: fleet.placement.of(vm).host,
      to,
      strategy: wantedStrategy(cluster, asked),
      limits,
      target: undefined,
      memoryBytes: undefined,
      findings: findings.list,
      steps: [],
    };
  }
  const limit = anySignal([signal, AbortSignal.timeout(cluster.deadlines.prepare)]);
  const located = await locateAll(fleet, limit, findings, vm);
  signal.throwIfAborted();
  const here = located.get(vm);
  const from = here?.host ?? fleet.placement.of(vm).host;
  if (from === to) findings.refuse(`${vm} is on ${to} already`);
  else await checkDestination({ fleet, vm, to, machine: here?.facts.machine ?? "", signal }, findings);
  if (here !== undefined && here.facts.status !== "running")
    findings.refuse(`${vm} is ${here.facts.status} on ${from}, not running`, "resume it first");
  const silent = await greetAgents(fleet, [...located.keys()], signal);
  for (const [name, error] of silent) {
    if (name === vm) findings.take(error);
    else findings.note(`${error.message}; its ranks, if it has any, are not known`);
  }
  for (const complaint of fleet.complaints())
    findings.refuse(
      complaint,
      "an agent that speaks for other VMs is broken or hostile: look into that guest",
    );
  const onVm = jobsOn(vm, fleet.roster.jobs());
  const strategy = chooseStrategy(vm, wantedStrategy(cluster, asked), onVm, findings, backBefore);
  const jobs = checkJobs(vm, fleet.roster.jobs(), findings, strategy);
  const cards =
    here === undefined
      ? []
      : chooseCards(
          fleet,
          { vm, from, to, facts: here.facts, mayLack: strategy === "live" && jobs.length > 0 },
          findings,
        );
  if (here !== undefined) checkBlockers(vm, here.facts, cards, cluster, findings);
  // A parked job comes back over whatever it ran over.
  const route =
    strategy === "park"
      ? { jobs, leave: true, comeBack: true }
      : planRoutes({ vm, targets: jobs, jobs: onVm, roster: fleet.roster, cards, keeps: false }, findings);
  const state = fleet.roster.state(vm);
  if (state !== undefined && (here?.facts.cards.length ?? 0) > 0) checkHolders(vm, state, jobs, findings);
  const cycle = nextCycle(journal.lastCycle(), fleet.roster, jobs);
  if (strategy === "live")
    for (const job of onVm) noteRanks(job, route.jobs.find((j) => j.job === job.job)?.moving, findings);
  const target: CycleTarget = { cycle, vm, from, to, cards, strategy, ...route };
  const refused = findings.refusals().length > 0;
  return {
    vm,
    from,
    to,
    strategy,
    limits,
    target: refused ? undefined : target,
    memoryBytes: here?.facts.memoryBytes,
    findings: findings.list,
    steps: describeSteps(target),
  };
}

interface DestinationCheck {
  fleet: Fleet;
  vm: string;
  to: string;
  machine: string;
  signal: AbortSignal;
}

async function checkDestination(check: DestinationCheck, findings: Findings): Promise<void> {
  const { fleet, vm, to, machine, signal } = check;
  const limit = anySignal([signal, AbortSignal.timeout(fleet.cluster.deadlines.prepare)]);
  try {
    await fleet.vmm.checkHost(vm, to, machine, limit);
  } catch (error) {
    signal.throwIfAborted();
    if (error instanceof SymvirtError || !limit.aborted) findings.take(error);
    else
      findings.unreachable(
        `host ${to} does not run a command in time`,
        `check hosts.${to}.run in the cluster file`,
      );
  }
}

/** Where every VM is. Only the moving VM's absence stands against the plan. */
async function locateAll(
  fleet: Fleet,
  signal: AbortSignal,
  findings: Findings,
  moving: string,
): Promise<Map<string, { host: string; facts: VmFacts }>> {
  const located = new Map<string, { host: string; facts: VmFacts }>();
  await Promise.all(
    Object.keys(fleet.cluster.vms).map(async (vm) => {
      try {
        const found = await fleet.locate(vm, signal);
        located.set(vm, found);
        await fleet.follow(vm, found.host);
      } catch (error) {
        if (vm === moving) findings.take(error);
        else
          findings.note(`${vm} does not answer: ${error instanceof Error ? error.message : String(error)}`);
      }
    }),
  );
  return located;
}

interface CardQuestion {
  vm: string;
  from: string;
  to: string;
  facts: VmFacts;
  /** It may go to a host without a card: its job runs on over tcp. */
  mayLack: boolean;
}

/** For each card the VM has now, which one it is and which free one of the destination takes its place. */
function chooseCards(
  fleet: Fleet,
  { vm, from, to, facts, mayLack }: CardQuestion,
  findings: Findings,
): CycleTarget["cards"] {
  const { cluster } = fleet;
  const places = fleet.placement.read();
  const offered = cluster.hosts[to]?.cards ?? {};
  const used = takenCards(fleet, to, vm);
  const chosen: CycleTarget["cards"] = [];
  for (const [tag, slot] of Object.entries(cluster.vms[vm]?.cards ?? {})) {
    if (!facts.cards.includes(tag)) {
      const free = Object.keys(offered).filter((name) => !used.has(name));
      const destination = free.find((name) => name === slot.card) ?? free[0];
      const then = destination === undefined ? "moves without one" : `gets ${destination} of ${to}`;
      findings.note(`${vm} has no card under ${tag} now; it ${then}`);
      if (destination === undefined) continue;
      used.set(destination, vm);
      chosen.push({ tag, bus: slot.bus, source: null, destination });
      continue;
    }
    const place = places.get(vm);
    const source = (place?.host === from ? place.cards[tag] : undefined) ?? slot.card ?? "";
    const sourceCard = cluster.hosts[from]?.cards[source];
    if (sourceCard === undefined) {
      findings.refuse(
        `which card of ${from} ${vm} has under ${tag} is not known`,
        `give vms.${vm}.cards.${tag}.card`,
      );
      continue;
    }
    const free = Object.keys(offered).filter((name) => !used.has(name));
    const fitting = free.filter((name) => offered[name]?.driver === sourceCard.driver);
    const destination = fitting.includes(source) ? source : fitting[0];
    if (destination === undefined) {
      const taken = [...used].map(([name, by]) => `${name} is that of ${by}`).join(", ");
      const why = free.length > 0 ? `${free.join(", ")} is of another kind than ${sourceCard.driver}` : taken;
      const lack = `${to} has no free card for ${tag} of ${vm} (${why || "it offers none"})`;
      if (mayLack) {
        findings.note(lack);
        chosen.push({ tag, bus: slot.bus, source, destination: null });
      } else findings.refuse(lack, "choose another host");
      continue;
    }
    used.set(destination, vm);
    chosen.push({ tag, bus: slot.bus, source, destination });
  }
  return chosen;
}

/** Migration blockers that will not go away with the card. */
export function checkBlockers(
  vm: string,
  facts: VmFacts,
  cards: CycleTarget["cards"],
  cluster: Cluster,
  findings: Findings,
): void {
  const drivers = cards.flatMap((c) =>
    Object.values(cluster.hosts).map((h) => h.cards[c.source ?? ""]?.driver),
  );
  const ofCard = (reason: string) =>
    cards.length > 0 &&
    (/vfio/i.test(reason) ||
      [...cards.map((c) => c.tag), ...drivers].some((w) => w !== undefined && reason.includes(w)));
  for (const reason of facts.blockers)
    if (!ofCard(reason))
      findings.refuse(`the VMM would not migrate ${vm}: ${reason}`, "detach that device first");
}

function describeSteps(target: CycleTarget): string[] {
  const { vm, from, to, cards, jobs, strategy, leave, comeBack } = target;
  const ranks = jobs.flatMap((j) => j.ranks);
  const out = cards.flatMap((c) => (c.source === null ? [] : [`${c.tag} (${c.source})`]));
  const into = cards.flatMap((c) => (c.destination === null ? [] : [`${c.destination} as ${c.tag}`]));
  const names = jobs.map((j) => j.job).join(", ");
  const vms = [...new Set(ranks.map((r) => r.vm))].join(", ");
  const movers = jobs.flatMap((j) => j.moving ?? j.ranks.map((r) => r.rank));
  const moversOn = [
    ...new Set(jobs.flatMap((j) => j.ranks.filter((r) => changesRoutes(j, r.rank)).map((r) => r.vm))),
  ].join(", ");
  return [
    `start a destination for ${vm} on ${to}`,
    ...(jobs.length > 0 && leave
      ? [
          strategy === "park"
            ? `park the ${ranks.length} ranks of job ${names} on ${vms}`
            : movers.length === ranks.length
              ? `let the ${ranks.length} ranks of job ${names} on ${vms} run on over tcp`
              : `let ${rankList(movers)} of job ${names} on ${moversOn} run on over tcp; the other ranks keep openib among themselves`,
        ]
      : []),
    ...(out.length > 0 ? [`detach ${out.join(", ")} from ${vm} on ${from}`] : []),
    `migrate ${vm} from ${from} to ${to}`,
    ...(into.length > 0 ? [`attach ${into.join(", ")} on ${to} and wait for link-up`] : []),
    ...(jobs.length > 0 && comeBack
      ? [`let ${movers.length === ranks.length ? "the ranks" : rankList(movers)} run over openib again`]
      : []),
    `end the old process of ${vm} on ${from}`,
  ];
}
