/** Everything about a restart that can be known before anything is started; all refusals are collected. */
import type { CapturedVm, Manifest } from "../../checkpoint/manifest.js";
import { CheckpointStore } from "../../checkpoint/store.js";
import { SymvirtError } from "../../errors.js";
import { anySignal } from "../../signals.js";
import { quote } from "../../vmm/qemu/run-on-host.js";
import { type Finding, Findings } from "../findings.js";
import type { Fleet } from "../fleet.js";
import { knownHost, knownVm } from "../plan.js";
import type { Session } from "../session.js";
import type { CycleTarget, InterruptedCycle } from "../state/journal.js";
import { commandDifference } from "./command-match.js";
import { fence } from "./fencing.js";
import { interruptedWords } from "../interrupted.js";
import type { SetVm } from "./set-ops.js";
import { refuseTool, toolsScript } from "./part-tools.js";

export interface RestartPlan {
  checkpoint: string;
  vms: SetVm[];
  /** Undefined when something refuses. */
  target: CycleTarget | undefined;
  findings: Finding[];
  /** What would happen, a line a step. */
  steps: string[];
}

export interface RestartQuestion {
  manifest: Manifest;
  /** By VM, the host the operator wants. */
  on: Readonly<Record<string, string>>;
  /** Hosts of which the operator vouches that they are off. */
  gone: readonly string[];
  /** Hosts that get no VM unless the operator wants it. */
  avoid: readonly string[];
  signal: AbortSignal;
}

/** Makes the plan. Throws "usage" for unknown names; everything else becomes a finding. */
export async function planRestart(session: Session, question: RestartQuestion): Promise<RestartPlan> {
  const { fleet, journal, cluster } = session;
  const { manifest, on, gone, signal } = question;
  for (const [vm, host] of Object.entries(on)) {
    knownVm(cluster, vm);
    knownHost(cluster, host);
    if (!manifest.vms.some((v) => v.vm === vm))
      throw new SymvirtError("usage", `${vm} is not in checkpoint ${manifest.id}`);
  }
  for (const host of gone) knownHost(cluster, host);
  const findings = new Findings();
  const plan: RestartPlan = {
    ...{ checkpoint: manifest.id, vms: [], target: undefined, findings: findings.list, steps: [] },
  };
  const interrupted = journal.interrupted();
  if (interrupted !== undefined && !covers(manifest, interrupted)) {
    findings.refuse(interruptedWords(interrupted), "run `symvirt abort`");
    return plan;
  }
  if (interrupted !== undefined)
    findings.note(`${interruptedWords(interrupted)}; with all its VMs dead this restart ends it`);
  // Anew for each: a host that hangs must not take the time of the others.
  const limit = () => anySignal([signal, AbortSignal.timeout(cluster.deadlines.prepare)]);
  for (const vm of manifest.vms) checkCommand(fleet, vm, findings);
  const names = manifest.vms.map((v) => v.vm).filter((vm) => cluster.vms[vm] !== undefined);
  const healthy = await fence(fleet, names, gone, findings, limit());
  signal.throwIfAborted();
  plan.vms = chooseHosts(fleet, question, healthy, findings);
  await Promise.all(plan.vms.map((vm) => checkHost(fleet, manifest, vm, findings, limit())));
  await checkRoom(fleet, manifest, plan.vms, findings, limit());
  signal.throwIfAborted();
  plan.steps = stepsOf(manifest, plan.vms);
  const [first] = plan.vms;
  if (findings.refusals().length > 0 || first === undefined) return plan;
  plan.target = {
    // Ranks know cycles up to that of the checkpoint.
    cycle: 1 + Math.max(manifest.cycle, journal.lastCycle()),
    ...{ vm: first.vm, from: first.host, to: first.host, cards: [], strategy: "park" },
    // They have left the card before they were captured.
    ...{ leave: false, comeBack: true },
    jobs: manifest.jobs.map(({ job, worldSize, ranks }) => ({
      ...{ job, worldSize },
      ranks: ranks.map((r) => ({ ...r, tcpOnly: false, away: false })),
    })),
    set: { checkpoint: manifest.id, vms: plan.vms },
  };
  return plan;
}

/**
 * Is every VM of an interrupted cycle one of the checkpoint's? None of these runs any more, so nothing of it is left.
 * A restart leaves disks that are half put back: that is for `symvirt abort`.
 */
function covers(manifest: Manifest, { target, verb }: InterruptedCycle): boolean {
  if (verb === "restart") return false;
  const { vm, set, jobs } = target;
  const concerned = [
    vm,
    ...(set?.vms.map((v) => v.vm) ?? []),
    ...jobs.flatMap((job) => job.ranks.map((rank) => rank.vm)),
  ];
  return concerned.every((name) => manifest.vms.some((v) => v.vm === name));
}

function checkCommand(fleet: Fleet, captured: CapturedVm, findings: Findings): void {
  const vm = fleet.cluster.vms[captured.vm];
  if (vm === undefined) {
    findings.refuse(`${captured.vm} is not in the cluster file`, "put it there as it was");
    return;
  }
  const difference = commandDifference(vm.command, captured.argv, captured);
  if (difference !== undefined)
    findings.refuse(
      `the command of ${captured.vm} is not that of the checkpoint: "${difference.is}", and it was "${difference.was}"`,
      `set vms.${captured.vm}.command back: a VM can only be loaded into the same devices`,
    );
}

/** Where each VM goes: asked for, else where it was, else where there is most room for it; each with cards of that host. */
function chooseHosts(
  fleet: Fleet,
  { manifest, on, avoid }: RestartQuestion,
  healthy: readonly string[],
  findings: Findings,
): SetVm[] {
  const { cluster } = fleet;
  const inSet = new Set(manifest.vms.map((v) => v.vm));
  const used = new Map<string, Set<string>>(healthy.map((host) => [host, new Set()]));
  const load = new Map<string, number>(healthy.map((host) => [host, 0]));
  for (const [vm, place] of fleet.placement.read()) {
    if (inSet.has(vm)) continue;
    for (const card of Object.values(place.cards)) used.get(place.host)?.add(card);
    load.set(place.host, (load.get(place.host) ?? 0) + 1);
  }
  const cardsAt = (host: string, captured: CapturedVm): SetVm["cards"] | undefined => {
    const taken = new Set(used.get(host));
    const offered = Object.entries(cluster.hosts[host]?.cards ?? {});
    const chosen: SetVm["cards"] = [];
    for (const { tag, bus, card, driver } of captured.cards) {
      const free = offered.filter(([name, c]) => !taken.has(name) && c.driver === driver);
      const [name] = free.find(([n]) => n === card) ?? free[0] ?? [];
      if (name === undefined) return undefined;
      taken.add(name);
      chosen.push({ tag, bus, card: name });
    }
    return chosen;
  };
  const take = (captured: CapturedVm, host: string, cards: SetVm["cards"]): SetVm => {
    for (const { card } of cards) used.get(host)?.add(card);
    load.set(host, (load.get(host) ?? 0) + 1);
    return { vm: captured.vm, host, cards, images: captured.disks.map((d) => d.image) };
  };
  // Those with a word of the operator first, then those that can stay; the others go round them.
  const homeless = (vm: string) => {
    const { host } = fleet.placement.of(vm);
    return Number(avoid.includes(host) || !healthy.includes(host));
  };
  const turn = ({ vm }: CapturedVm) => (on[vm] !== undefined ? -1 : homeless(vm));
  const order = [...manifest.vms].sort((a, b) => turn(a) - turn(b));
  const chosen = order.flatMap((captured) => {
    const { vm } = captured;
    if (cluster.vms[vm] === undefined) return [];
    const asked = on[vm];
    const before = fleet.placement.of(vm).host;
    const byLoad = healthy
      .filter((host) => !avoid.includes(host))
      .sort((a, b) => (load.get(a) ?? 0) - (load.get(b) ?? 0));
    const candidates =
      asked !== undefined ? [asked] : [...byLoad.filter((host) => host === before), ...byLoad];
    for (const host of candidates) {
      const cards = healthy.includes(host) ? cardsAt(host, captured) : undefined;
      if (cards !== undefined) return [take(captured, host, cards)];
    }
    const drivers = captured.cards.map((c) => c.driver).join(", ");
    if (asked !== undefined && !healthy.includes(asked))
      findings.refuse(`host ${asked} does not answer`, "choose another");
    else
      findings.refuse(
        asked === undefined
          ? `no host that answers has a free card (${drivers}) for ${vm}`
          : `${asked} has no free card (${drivers}) for ${vm}`,
        "choose another host with --on, or add a card to the cluster file",
      );
    return [];
  });
  return chosen.sort((a, b) => a.vm.localeCompare(b.vm));
}

/** The deadline has passed, or somebody stopped: then the plan is thrown away. */
function late(host: string, findings: Findings): void {
  findings.unreachable(`host ${host} does not answer in time`);
}

async function checkHost(
  fleet: Fleet,
  manifest: Manifest,
  { vm, host }: SetVm,
  findings: Findings,
  signal: AbortSignal,
): Promise<void> {
  const captured = manifest.vms.find((v) => v.vm === vm);
  try {
    await fleet.vmm.checkHost(vm, host, captured?.machine ?? "", signal);
  } catch (error) {
    if (signal.aborted) return late(host, findings);
    if (!(error instanceof SymvirtError)) throw error;
    // A process of it has been told by the fencing.
    if (!error.message.includes("already runs")) findings.take(error);
  }
}

/** Memory of each host, its reach of the store, and what lies under the disks. */
async function checkRoom(
  fleet: Fleet,
  manifest: Manifest,
  vms: readonly SetVm[],
  findings: Findings,
  signal: AbortSignal,
): Promise<void> {
  const folder = new CheckpointStore(fleet.cluster).path;
  await Promise.all(
    [...new Set(vms.map((v) => v.host))].map(async (host) => {
      const here = manifest.vms.filter((m) => vms.some((v) => v.vm === m.vm && v.host === host));
      const bytes = here.reduce((sum, m) => sum + m.memoryBytes, 0);
      const backings = here.flatMap((m) =>
        m.disks.flatMap(({ kept }) => (kept.kind === "overlay" ? [kept.backing] : [])),
      );
      const script = `
${toolsScript}[ -r ${quote(`${folder}/${manifest.id}/manifest.json`)} ] || echo "store"
for file in ${backings.map(quote).join(" ")}; do [ -r "$file" ] || echo "backing $file"; done
echo ok
`;
      const answer = await fleet.vmm.run(host, script, signal).catch((error: unknown) => {
        if (!signal.aborted) throw error;
      });
      if (answer === undefined) return late(host, findings);
      const { stdout, code } = answer;
      const lines = stdout.trim().split("\n");
      if (lines.pop() !== "ok") findings.unreachable(`host ${host} does not run a command (status ${code})`);
      for (const line of lines) {
        const [what, value = ""] = [line.split(" ")[0], line.slice(line.indexOf(" ") + 1)];
        if (what === "lacks") refuseTool(findings, host, line);
        else if (what === "store")
          findings.refuse(
            `${host} cannot read the checkpoint ${manifest.id} in ${folder}`,
            "mount the store there",
          );
        else if (what === "backing")
          findings.refuse(
            `${host} cannot read ${value}, which lies under a disk`,
            "bring it there, as it was",
          );
      }
      const free = await freeBytes(fleet, host, findings, signal);
      if (free !== undefined && free < bytes)
        findings.refuse(
          `${host} has ${mebibytes(free)} of memory free, and ${here.map((m) => m.vm).join(", ")} take ${mebibytes(bytes)}`,
          "choose another host with --on",
        );
    }),
  );
}

const mebibytes = (bytes: number): string => `${Math.floor(bytes / 2 ** 20)} MiB`;

async function freeBytes(
  fleet: Fleet,
  host: string,
  findings: Findings,
  signal: AbortSignal,
): Promise<number | undefined> {
  try {
    return await fleet.vmm.freeMemory(host, signal);
  } catch (error) {
    if (signal.aborted) late(host, findings);
    else findings.take(error);
    return undefined;
  }
}

function stepsOf(manifest: Manifest, vms: readonly SetVm[]): string[] {
  const where = vms.map((v) => `${v.vm} on ${v.host}`).join(", ");
  const cards = vms.flatMap((v) =>
    v.cards.map(({ tag, card }) => `${card} of ${v.host} as ${tag} of ${v.vm}`),
  );
  const ranks = manifest.jobs.reduce((sum, j) => sum + j.ranks.length, 0);
  return [
    `put the disks of ${vms.map((v) => v.vm).join(", ")} back to what they held at ${manifest.createdAt}`,
    `start ${where} from checkpoint ${manifest.id}, paused, then resume all and join the wires`,
    ...(cards.length > 0 ? [`attach ${cards.join(", ")} and wait for link-up`] : []),
    ...(ranks > 0
      ? [`let the ${ranks} ranks of job ${manifest.jobs.map((j) => j.job).join(", ")} run over openib`]
      : []),
  ];
}

/** The error of a plan that refuses; undefined when it does not. */
export function restartRefusal(plan: RestartPlan): SymvirtError | undefined {
  const findings = new Findings();
  findings.list.push(...plan.findings);
  return findings.error(`checkpoint ${plan.checkpoint} cannot be restarted`);
}
