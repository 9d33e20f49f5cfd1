/** Why a VM cannot be migrated, without asking where to: the plan's checks of the source side. */

import { anySignal } from "../signals.js";
import type { Cluster } from "./cluster-file.js";
import { isUp } from "./conditions.js";
import { type Finding, Findings } from "./findings.js";
import type { Fleet } from "./fleet.js";
import { plainText } from "./plain-text.js";
import { checkBlockers, greetAgents, knownVm } from "./plan.js";
import { checkHolders, checkJobs } from "./plan-jobs.js";
import { chooseStrategy, jobsOn, wantedStrategy } from "./plan-strategy.js";
import { openSession, type SessionOptions } from "./session.js";
import { takenCards } from "./taken-cards.js";

export interface Diagnosis {
  vm: string;
  host: string;
  findings: Finding[];
}

export interface ExamineOptions extends Pick<SessionOptions, "vmm" | "timing"> {
  /** All VMs when undefined. */
  vm: string | undefined;
  signal: AbortSignal;
}

/** Examines one VM or all. Touches nothing. */
export async function examine(cluster: Cluster, options: ExamineOptions): Promise<Diagnosis[]> {
  const { vm, signal } = options;
  if (vm !== undefined) knownVm(cluster, vm);
  const session = await openSession(cluster, { ...options, what: "doctor", acting: false });
  try {
    const { fleet, journal } = session;
    const all = Object.keys(cluster.vms);
    const found = new Map(all.map((name) => [name, new Findings()]));
    const present = await Promise.all(
      all.map((name) => inspect(fleet, name, found.get(name) ?? new Findings(), signal)),
    );
    const answering = all.filter((_, i) => present[i] === true);
    const silent = await greetAgents(fleet, answering, signal);
    const interrupted = journal.interrupted();
    return all
      .filter((name) => vm === undefined || name === vm)
      .map((name) => {
        const findings = found.get(name) ?? new Findings();
        const silence = silent.get(name);
        if (silence !== undefined) findings.take(silence);
        if (interrupted !== undefined)
          findings.refuse(`cycle ${interrupted.target.cycle} was interrupted`, "run `symvirt abort`");
        examineGuest(fleet, name, findings);
        checkSpare(fleet, name, findings);
        return { vm: name, host: fleet.hostOf(name), findings: findings.list };
      });
  } finally {
    await session.close();
  }
}

async function inspect(fleet: Fleet, vm: string, findings: Findings, signal: AbortSignal): Promise<boolean> {
  const limit = anySignal([signal, AbortSignal.timeout(fleet.cluster.deadlines.hello)]);
  try {
    const { host, facts } = await fleet.locate(vm, limit);
    await fleet.follow(vm, host);
    if (facts.status !== "running") findings.refuse(`${vm} is ${facts.status}, not running`, "resume it");
    const slots = Object.entries(fleet.cluster.vms[vm]?.cards ?? {});
    const cards = slots
      .filter(([tag]) => facts.cards.includes(tag))
      .map(([tag, { bus, card = "" }]) => ({ tag, bus, source: card, destination: card }));
    for (const [tag] of slots)
      if (!facts.cards.includes(tag)) findings.note(`${vm} has no card under ${tag} now`);
    checkBlockers(vm, facts, cards, fleet.cluster, findings);
    return true;
  } catch (error) {
    signal.throwIfAborted();
    findings.take(error);
    return false;
  }
}

function examineGuest(fleet: Fleet, vm: string, findings: Findings): void {
  const state = fleet.roster.state(vm);
  if (state === undefined) return;
  for (const complaint of fleet.complaints()) findings.refuse(complaint);
  const strategy = chooseStrategy(
    vm,
    wantedStrategy(fleet.cluster, undefined),
    jobsOn(vm, fleet.roster.jobs()),
    findings,
  );
  const jobs = checkJobs(vm, fleet.roster.jobs(), findings, strategy);
  checkHolders(vm, state, jobs, findings);
  if (jobs.length === 0) findings.note(`no MPI job of symvirt runs on ${vm}`);
  for (const device of state.devices) {
    if (isUp(device)) continue;
    const name = plainText(device.verbs || device.netdev || device.pci);
    findings.note(
      `${name} of ${vm} is not usable: port ${plainText(device.port) || "missing"}${device.gid === "" ? ", no GID" : ""}`,
      "see the post-attach hook and `ibv_devinfo` in the guest",
    );
  }
  if (state.hookError !== "") findings.note(`the post-attach hook failed: ${plainText(state.hookError)}`);
}

/** Whether any other host could take the VM's cards. */
function checkSpare(fleet: Fleet, vm: string, findings: Findings): void {
  const here = fleet.hostOf(vm);
  const need = Object.keys(fleet.placement.of(vm).cards).length;
  const able = Object.entries(fleet.cluster.hosts).filter(
    ([host, { cards }]) =>
      host !== here && Object.keys(cards).length - takenCards(fleet, host, vm).size >= need,
  );
  if (able.length === 0)
    findings.refuse(`no other host has a free card for ${vm}`, "add a host or free a card");
}
