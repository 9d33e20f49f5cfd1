/** Everything about a checkpoint that can be known before anything is touched; all refusals are collected. */
import { CheckpointStore, estimateBytes, type Room } from "../../checkpoint/store.js";
import { SymvirtError } from "../../errors.js";
import { anySignal } from "../../signals.js";
import type { CaptureFacts, CaptureMethod, VmFacts } from "../../vmm/driver.js";
import { quote } from "../../vmm/qemu/run-on-host.js";
import { type Finding, Findings } from "../findings.js";
import type { Fleet } from "../fleet.js";
import { isAway } from "../movers.js";
import { nextCycle } from "../next-cycle.js";
import { refuseTool, toolsScript } from "./part-tools.js";
import { checkBlockers, greetAgents } from "../plan.js";
import { checkHolders, checkJobs } from "../plan-jobs.js";
import { wantedStrategy, whyPark } from "../plan-strategy.js";
import type { Session } from "../session.js";
import type { CycleTarget } from "../state/journal.js";
import type { Strategy } from "../strategy.js";
import { interruptedWords } from "../interrupted.js";
import type { SetVm } from "./set-ops.js";

export interface CheckpointPlan {
  vms: SetVm[];
  strategy: Strategy;
  method: CaptureMethod;
  /** Without the checkpoint's id; undefined when something refuses. */
  target: Omit<CycleTarget, "set"> | undefined;
  facts: Map<string, { facts: VmFacts; capture: CaptureFacts }>;
  room: Room | undefined;
  findings: Finding[];
  /** What would happen, a line a step. */
  steps: string[];
}

export interface CheckpointQuestion {
  strategy?: Strategy;
  /** Absent: background snapshots, where every host can. */
  capture?: CaptureMethod;
  signal: AbortSignal;
}

/** Makes the plan. Throws "usage" when there is no store; everything else becomes a finding. */
export async function planCheckpoint(
  { fleet, journal, cluster }: Session,
  { strategy: asked, capture: wanted, signal }: CheckpointQuestion,
): Promise<CheckpointPlan> {
  const store = new CheckpointStore(cluster);
  const findings = new Findings();
  const strategy = wantedStrategy(cluster, asked);
  const plan: CheckpointPlan = {
    ...{ vms: [], strategy, method: "background-snapshot", target: undefined, facts: new Map() },
    ...{ room: undefined, findings: findings.list, steps: [] },
  };
  const interrupted = journal.interrupted();
  if (interrupted !== undefined) {
    findings.refuse(interruptedWords(interrupted), "run `symvirt abort`");
    return plan;
  }
  const limit = anySignal([signal, AbortSignal.timeout(cluster.deadlines.prepare)]);
  await Promise.all(
    Object.keys(cluster.vms).map(async (vm) => {
      try {
        const { host, facts } = await fleet.locate(vm, limit);
        await fleet.follow(vm, host);
        if (facts.status !== "running")
          findings.refuse(`${vm} is ${facts.status} on ${host}, not running`, "resume it first");
        plan.facts.set(vm, { facts, capture: await fleet.driver(vm, host).captureFacts(limit) });
        plan.vms.push({ vm, host, cards: presentCards(fleet, vm, host, facts, findings), images: [] });
      } catch (error) {
        signal.throwIfAborted();
        findings.take(error);
      }
    }),
  );
  plan.vms.sort((a, b) => a.vm.localeCompare(b.vm));
  await checkImages(fleet, plan, findings, limit);
  const silent = await greetAgents(fleet, [...plan.facts.keys()], signal);
  for (const error of silent.values()) findings.take(error);
  for (const complaint of fleet.complaints())
    findings.refuse(
      complaint,
      "an agent that speaks for other VMs is broken or hostile: look into that guest",
    );

  const jobs = planJobs(fleet, plan, findings);
  for (const { vm, cards } of plan.vms) {
    const state = fleet.roster.state(vm);
    const known = plan.facts.get(vm);
    if (state !== undefined && cards.length > 0) checkHolders(vm, state, jobs, findings);
    if (known === undefined) continue;
    const leaving = cards.map(({ tag, bus, card }) => ({ tag, bus, source: card, destination: card }));
    checkBlockers(vm, known.facts, leaving, cluster, findings);
    if (known.capture.method === "stop-and-save") {
      plan.method = "stop-and-save";
      if (wanted === "background-snapshot")
        findings.refuse(`${vm} cannot be captured while it runs`, "leave out --capture");
    }
  }
  if (wanted === "stop-and-save") plan.method = wanted;
  else if (plan.method === "stop-and-save")
    findings.note(
      "a host cannot write-protect memory (userfaultfd): the VMs stand still until theirs is written",
    );
  try {
    plan.room = store.room(needed(plan, store));
  } catch (error) {
    findings.take(error);
  }
  plan.steps = stepsOf(plan, jobs);
  const [first] = plan.vms;
  if (findings.refusals().length > 0 || first === undefined) return plan;
  plan.target = {
    cycle: nextCycle(journal.lastCycle(), fleet.roster, jobs),
    ...{ vm: first.vm, from: first.host, to: first.host, cards: [], jobs },
    ...{ strategy: plan.strategy, leave: true, comeBack: true },
  };
  return plan;
}

/**
 * A restart puts a copy in an image's place: a device (LVM, iSCSI) would get a file of that name in /dev, and a link
 * would be replaced by one. QEMU does not say what a name leads to, its host does.
 */
async function checkImages(
  fleet: Fleet,
  plan: CheckpointPlan,
  findings: Findings,
  signal: AbortSignal,
): Promise<void> {
  await Promise.all(
    plan.vms.map(async ({ vm, host }) => {
      const images = plan.facts.get(vm)?.capture.disks.map((d) => d.image) ?? [];
      const script = `${toolsScript}for i in ${images.map(quote).join(" ")}; do [ -f "$i" ] && [ ! -L "$i" ] || echo "not $i"; done\necho ok\n`;
      const answer = await fleet.vmm.run(host, script, signal).catch((error: unknown) => {
        if (!signal.aborted) throw error;
      });
      const lines = answer?.stdout.trim().split("\n") ?? [];
      if (lines.pop() !== "ok") findings.unreachable(`host ${host} does not say what the disks of ${vm} are`);
      for (const line of lines)
        if (line.startsWith("lacks ")) refuseTool(findings, host, line);
        else
          findings.refuse(
            `${line.slice(4)}, a disk of ${vm}, is no file on ${host}: a device or a link cannot be put back`,
            "keep disks in image files, and name them by their own paths",
          );
    }),
  );
}

/** Bytes the checkpoint may take. */
function needed({ facts }: CheckpointPlan, store: CheckpointStore): number {
  const all = [...facts.values()];
  const memoryBytes = all.reduce((sum, { facts: f }) => sum + f.memoryBytes, 0);
  const disks = all.flatMap(({ capture }) => capture.disks);
  return estimateBytes(
    { memoryBytes, diskBytes: disks.reduce((sum, d) => sum + d.usedBytes, 0) },
    store.last(),
  );
}

/** live if every job can; a note says why not. */
function planJobs(fleet: Fleet, plan: CheckpointPlan, findings: Findings): CycleTarget["jobs"] {
  const roster = fleet.roster.jobs();
  const reasons = roster.map(whyPark).filter((reason) => reason !== undefined);
  if (plan.strategy === "live") {
    for (const reason of reasons) findings.note(`the jobs are parked: ${reason}`);
    if (reasons.length > 0) plan.strategy = "park";
  }
  for (const { job, ranks } of roster) {
    const away = [...ranks.values()].find((r) => isAway(r.report));
    if (away !== undefined)
      findings.refuse(
        `rank ${away.report.rank} of job ${job} on ${away.vm} runs over tcp`,
        `\`symvirt recover ${away.vm}\` brings openib back once there is a card`,
      );
  }
  const found = plan.vms.flatMap(({ vm }) => checkJobs(vm, roster, new Findings(), plan.strategy));
  const jobs = [...new Map(found.map((j) => [j.job, j])).values()];
  // Once a job, not once a VM of it.
  for (const { job, ranks } of jobs)
    checkJobs(
      ranks[0]?.vm ?? "",
      roster.filter((j) => j.job === job),
      findings,
      plan.strategy,
    );
  return jobs;
}

function presentCards(
  fleet: Fleet,
  vm: string,
  host: string,
  facts: VmFacts,
  findings: Findings,
): SetVm["cards"] {
  const place = fleet.placement.of(vm);
  return Object.entries(fleet.cluster.vms[vm]?.cards ?? {}).flatMap(([tag, { bus, card: first }]) => {
    if (!facts.cards.includes(tag)) return [];
    const card = (place.host === host ? place.cards[tag] : undefined) ?? first ?? "";
    if (fleet.cluster.hosts[host]?.cards[card] !== undefined) return [{ tag, bus, card }];
    findings.refuse(
      `which card of ${host} ${vm} has under ${tag} is not known`,
      `give vms.${vm}.cards.${tag}.card`,
    );
    return [];
  });
}

function stepsOf({ vms, strategy, method }: CheckpointPlan, jobs: CycleTarget["jobs"]): string[] {
  const ranks = jobs.reduce((sum, j) => sum + j.ranks.length, 0);
  const cards = vms.flatMap((v) => v.cards.map(({ tag, card }) => `${tag} (${card}) of ${v.vm}`));
  const list = vms.map((v) => v.vm).join(", ");
  const how = method === "background-snapshot" ? "while it runs" : "while it stands still";
  const leave = strategy === "park" ? `park the ${ranks} ranks` : `let the ${ranks} ranks run on over tcp`;
  return [
    ...(ranks > 0 ? [`${leave} of job ${jobs.map((j) => j.job).join(", ")}`] : []),
    ...(cards.length > 0 ? [`detach ${cards.join(", ")}`] : []),
    `cut the wires between ${list}, capture each, join the wires`,
    `write the memory of each ${how}, and its disks`,
    ...(cards.length > 0 ? ["attach the cards and wait for link-up"] : []),
    ...(ranks > 0 ? ["let the ranks run over openib again"] : []),
  ];
}

/** The error of a plan that refuses; undefined when it does not. */
export function checkpointRefusal(plan: CheckpointPlan): SymvirtError | undefined {
  const findings = new Findings();
  findings.list.push(...plan.findings);
  return findings.error("no checkpoint can be made");
}
