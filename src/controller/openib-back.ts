/** `symvirt recover VM`: openib again for a job that runs on over tcp, where the VM is. */
import { SymvirtError } from "../errors.js";
import { anySignal } from "../signals.js";
import { isUp } from "./conditions.js";
import { Findings } from "./findings.js";
import { isAway } from "./movers.js";
import { nextCycle } from "./next-cycle.js";
import { ControlDesk, type Operation, runOperation } from "./operation.js";
import { greetAgents, knownVm } from "./plan.js";
import { checkJobs } from "./plan-jobs.js";
import { jobsOn, planRoutes } from "./plan-strategy.js";
import { pictureRanks } from "./rank-spans.js";
import type { CycleReport } from "./report.js";
import type { RosterJob } from "./roster.js";
import type { Session } from "./session.js";
import type { CycleTarget } from "./state/journal.js";

export interface OpenibBackRequest {
  vm: string;
  signal: AbortSignal;
  onProgress?: Operation["onProgress"];
  settleMs?: number;
}

/**
 * Attaches a card of the VM's host if it has none, then lets the ranks run over openib. Throws SymvirtError when
 * nothing was touched; otherwise the report tells. If it fails the job runs on over tcp.
 */
export async function bringOpenibBack(session: Session, request: OpenibBackRequest): Promise<CycleReport> {
  const { vm, signal } = request;
  const desk = new ControlDesk(session, `recover ${vm}`);
  await desk.open();
  let outcome: object = { error: "the operation ended before its cycle began" };
  try {
    const target = await planReturn(session, vm, anySignal([signal, desk.abort.signal]));
    session.lock.describe(`cycle ${target.cycle} (recover ${vm})`);
    session.journal.append({ kind: "begin", pid: process.pid, verb: "recover", target });
    const { unfinished, ...report } = await runOperation(
      {
        ...{ session, verb: "recover", signal, limits: {} },
        ...(request.onProgress === undefined ? {} : { onProgress: request.onProgress }),
        ...(request.settleMs === undefined ? {} : { settleMs: request.settleMs }),
      },
      desk,
      target,
      { event: { type: "begin" }, before: pictureRanks(session.fleet, target) },
    );
    outcome = { report, unfinished };
    return report;
  } catch (error) {
    if (error instanceof SymvirtError) outcome = { error: error.message };
    throw error;
  } finally {
    await desk.close(outcome);
  }
}

async function planReturn(session: Session, vm: string, signal: AbortSignal): Promise<CycleTarget> {
  const { fleet, journal, cluster } = session;
  knownVm(cluster, vm);
  const findings = new Findings();
  const open = journal.interrupted();
  if (open !== undefined)
    throw new SymvirtError("refused", `cycle ${open.target.cycle} was interrupted`, {
      hint: "run `symvirt abort`",
    });
  const limit = anySignal([signal, AbortSignal.timeout(cluster.deadlines.prepare)]);
  const { host, facts } = await fleet.locate(vm, limit);
  await fleet.follow(vm, host);
  const others = Object.keys(cluster.vms).filter((name) => name !== vm);
  // A VM that does not answer shows as ranks that are not reported, if the job has any there.
  await Promise.all(
    others.map(async (name) => {
      try {
        await fleet.follow(name, (await fleet.locate(name, limit)).host);
      } catch (error) {
        signal.throwIfAborted();
        findings.note(`${name} does not answer: ${error instanceof Error ? error.message : String(error)}`);
      }
    }),
  );
  const silent = await greetAgents(fleet, [vm, ...others], signal);
  const here = silent.get(vm);
  if (here !== undefined) findings.take(here);
  for (const complaint of fleet.complaints()) findings.refuse(complaint);

  const onVm = jobsOn(vm, fleet.roster.jobs());
  const targets = checkJobs(vm, fleet.roster.jobs(), findings, "live");
  if (here === undefined && onVm.length === 0) findings.refuse(`no job runs on ${vm}`);
  const cards = missingCards(session, vm, host, facts.cards, findings);
  const up = fleet.roster.state(vm)?.devices.some(isUp) === true;
  if (here === undefined && cards.length === 0 && !up)
    findings.refuse(`${vm} has no card with an active port`, "`symvirt status` shows its ports");
  const question = { vm, targets, jobs: onVm, roster: fleet.roster, cards, keeps: up };
  const { jobs, leave, comeBack } = planRoutes(question, findings);
  if (onVm.length > 0 && leave)
    findings.refuse(`the ranks on ${vm} do not run over tcp: nothing to recover`, elsewhere(onVm));
  if (cards.length === 0 && onVm.length > 0 && !comeBack)
    for (const { text } of findings.list.filter((f) => f.level === "note")) findings.refuse(text);
  const refused = findings.error(`openib cannot be brought back for ${vm}`);
  if (refused !== undefined) throw refused;
  const cycle = nextCycle(journal.lastCycle(), fleet.roster, jobs);
  return {
    ...{ cycle, vm, from: host, to: host, cards, jobs },
    ...{ strategy: "live", leave: false, comeBack },
  };
}

/** Where else `recover` would find something to do. */
function elsewhere(jobs: readonly RosterJob[]): string | undefined {
  const away = jobs.flatMap((j) => [...j.ranks.values()].filter((r) => isAway(r.report)));
  const vms = [...new Set(away.map((r) => r.vm))];
  if (vms.length === 0) return undefined;
  return `ranks on ${vms.join(", ")} do: \`symvirt recover ${vms[0]}\``;
}

/** A free card of the host for every slot of the VM that is empty. */
function missingCards(
  { fleet, cluster }: Session,
  vm: string,
  host: string,
  present: readonly string[],
  findings: Findings,
): CycleTarget["cards"] {
  const used = new Set<string>();
  for (const [other, place] of fleet.placement.read())
    if (other !== vm && fleet.hostOf(other) === host)
      for (const name of Object.values(place.cards)) used.add(name);
  const own = fleet.placement.of(vm).cards;
  for (const [tag, name] of Object.entries(own)) if (present.includes(tag)) used.add(name);
  const chosen: CycleTarget["cards"] = [];
  for (const [tag, { bus }] of Object.entries(cluster.vms[vm]?.cards ?? {})) {
    if (present.includes(tag)) continue;
    const name = Object.keys(cluster.hosts[host]?.cards ?? {}).find((card) => !used.has(card));
    if (name === undefined) {
      findings.refuse(`${host} has no free card for ${tag} of ${vm}`, "migrate it to a host that has one");
      continue;
    }
    used.add(name);
    chosen.push({ tag, bus, source: null, destination: name });
  }
  return chosen;
}
