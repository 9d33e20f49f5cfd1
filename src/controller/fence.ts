/**
 * Fencing: before VMs are started from a checkpoint the old ones are proven dead. Every process of theirs is killed by
 * its pid, on the host where the VM is recorded, on the hosts of an interrupted cycle, and on all others that answer.
 * A host that must answer and does not is switched off by the site's own command, if there is one; else there is no proof.
 */
import { spawn } from "node:child_process";
import { setTimeout as delay } from "node:timers/promises";
import { SymvirtError } from "../errors.js";
import { anySignal } from "../signals.js";
import type { Session } from "./session.js";

export interface FenceRequest {
  vms: readonly string[];
  /** Switches off a host, "{host}" replaced; status 0 is the proof. */
  command?: readonly string[];
  signal: AbortSignal;
}

export type FenceOutcome =
  | { allLive: true }
  /** `silent`: hosts that do not answer, and on which none of the VMs can be. */
  | { allLive: false; switchedOff: string[]; silent: string[] };

/** A host is asked so often, with so many milliseconds between: one lost connection is no proof of anything. */
const ASKS = 3;
const ASK_AGAIN_MS = 2_000;
/** A refusal comes at once, a host without power never answers: its cluster must not stand still thrice as long. */
const PATIENT_MS = 5_000;
/** There is no proof because a host does not answer, and nobody could switch it off. */
export class HostUnanswering extends SymvirtError {
  constructor(message: string, hint: string) {
    super("needsOperator", message, { hint });
  }
}

/** What a site's fence command gets: power controllers are slow. */
const COMMAND_MS = 120_000;

/**
 * Resolves when none of the VMs runs anywhere, or, with nothing killed, because all of them live. Nothing is killed
 * before every host that counts answers or is switched off. Under the session's lock. Throws "needsOperator" when there
 * is no proof.
 */
export async function fenceVms(session: Session, request: FenceRequest): Promise<FenceOutcome> {
  const { cluster, fleet } = session;
  const { vms, signal } = request;
  const must = hostsThatCount(session, vms);
  // One that hangs takes its own time, and none of the others'.
  const soon = () => anySignal([signal, AbortSignal.timeout(cluster.deadlines.prepare)]);
  if (await allLive(session, vms, anySignal([signal, AbortSignal.timeout(cluster.deadlines.hello)])))
    return { allLive: true };
  const unanswered = new Map<string, string>();
  const silent = new Set<string>();
  const answering: string[] = [];
  const onEach = async (hosts: readonly string[], work: (host: string) => Promise<unknown>) => {
    await Promise.all(
      hosts.map(async (host) => {
        try {
          await insistently(() => work(host), signal);
        } catch (error) {
          signal.throwIfAborted();
          // A process that does not end although its host answers: switching the host off is for a person to decide.
          if (error instanceof SymvirtError && error.exit === "needsOperator") throw error;
          if (must.has(host)) unanswered.set(host, error instanceof Error ? error.message : String(error));
          else silent.add(host);
        }
      }),
    );
  };
  const switchedOff: string[] = [];
  const switchOffSilent = async () => {
    for (const [host, why] of unanswered) {
      await switchOff(host, why, request);
      switchedOff.push(host);
    }
    unanswered.clear();
  };
  await onEach(Object.keys(cluster.hosts), async (host) => {
    await fleet.vmm.presence(host, vms, soon());
    answering.push(host);
  });
  // Then it is this machine's network or keys: the VMs may well run, and there is no host to restart them on.
  if (answering.length === 0)
    throw new HostUnanswering(
      "none of the hosts answers this machine, so the VMs may still run",
      "see why (its network, its keys); nothing was killed or switched off",
    );
  await switchOffSilent();
  await onEach(answering, (host) => fleet.vmm.kill(host, vms, soon()));
  await switchOffSilent();
  return { allLive: false, switchedOff, silent: [...silent] };
}

/** Where one of the VMs can be: a VM is elsewhere only after its placement has been written. */
function hostsThatCount({ fleet, journal }: Session, vms: readonly string[]): Set<string> {
  const hosts = new Set(vms.map((vm) => fleet.placement.of(vm).host));
  const interrupted = journal.interrupted();
  if (interrupted === undefined) return hosts;
  // Of a restart the placement is written at its end.
  for (const { host } of interrupted.target.set?.vms ?? []) hosts.add(host);
  return hosts.add(interrupted.target.from).add(interrupted.target.to);
}

/** A policy has seen a death; under the lock it must still be so. */
async function allLive({ fleet }: Session, vms: readonly string[], signal: AbortSignal): Promise<boolean> {
  const states = await Promise.all(
    vms.map(async (vm) => {
      const { host } = fleet.placement.of(vm);
      const there = await fleet.vmm.presence(host, [vm], signal).catch(() => undefined);
      if (there?.get(vm) !== true) return false;
      // A process that does not answer is no proof of a death.
      const facts = await fleet
        .driver(vm, host)
        .inspect(signal)
        .catch(() => undefined);
      return facts === undefined || !["guest-panicked", "internal-error", "shutdown"].includes(facts.status);
    }),
  );
  signal.throwIfAborted();
  return states.every((alive) => alive);
}

async function insistently(work: () => Promise<unknown>, signal: AbortSignal): Promise<void> {
  for (let asked = 1; ; asked++) {
    const began = performance.now();
    try {
      await work();
      return;
    } catch (error) {
      // One that has not answered for so long has been waited for.
      const wasPatient = performance.now() - began > PATIENT_MS;
      if (asked === ASKS || wasPatient || (error instanceof SymvirtError && error.exit === "needsOperator"))
        throw error;
      await delay(ASK_AGAIN_MS, undefined, { signal });
    }
  }
}

async function switchOff(host: string, why: string, { command, signal }: FenceRequest): Promise<void> {
  if (command === undefined)
    throw new HostUnanswering(
      `${why}, so its VMs may still run`,
      `switch ${host} off, or give policy.reactive.fence in the cluster file`,
    );
  const [program = "", ...args] = command.map((word) => word.replaceAll("{host}", host));
  const limit = anySignal([signal, AbortSignal.timeout(COMMAND_MS)]);
  const failure = await new Promise<string | undefined>((resolve) => {
    const child = spawn(program, args, { stdio: ["ignore", "ignore", "pipe"], signal: limit });
    let said = "";
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      said = (said + text).slice(-512);
    });
    child.once("error", (error) => resolve(error.message));
    child.once("close", (code) =>
      resolve(code === 0 ? undefined : `status ${code}${said === "" ? "" : `: ${said.trim()}`}`),
    );
  });
  if (failure === undefined) return;
  throw new HostUnanswering(
    `${why}, and the fence command did not switch it off (${failure})`,
    `switch ${host} off by hand`,
  );
}
