/** `symvirt status`: from the running controller if there is one, else by asking every VMM and agent. */
import { setTimeout as delay } from "node:timers/promises";
import { SymvirtError } from "../errors.js";
import { anySignal } from "../signals.js";
import { askPeers } from "./ask-peers.js";
import type { Cluster } from "./cluster-file.js";
import { greetAgents } from "./plan.js";
import { openSession, openStateFolder, type Session, type SessionOptions } from "./session.js";
import { interruptedWords } from "./interrupted.js";
import { type KnownVmm, type StatusReport, snapshotFleet } from "./snapshot.js";
import { askControl, ControllerGone, type ControlRequest } from "./state/control-socket.js";
import { Journal } from "./state/journal.js";

const BUSY_POLL_MS = 50;

const isRefused = (error: unknown) => error instanceof SymvirtError && error.exit === "refused";

/** Never fails because of one VM: what does not answer is shown as such, within the hello deadline. */
export async function readStatus(
  cluster: Cluster,
  options: Pick<SessionOptions, "vmm" | "timing"> & { signal: AbortSignal; peers: boolean },
): Promise<StatusReport> {
  const request: ControlRequest = { ask: "status", ...(options.peers ? { peers: true } : {}) };
  openStateFolder(cluster.state);
  const limit = anySignal([options.signal, AbortSignal.timeout(cluster.deadlines.hello)]);
  let session: Session | undefined;
  while (session === undefined) {
    try {
      const answer = await askControl(cluster.state, request, limit);
      // Our own controller's word over a 0600 socket, not a guest's.
      if (answer !== undefined) return toldBy(answer as StatusReport | { error: string });
      session = await openSession(cluster, { ...options, what: "status", acting: false });
    } catch (error) {
      // A controller has begun or is about to end: it holds the lock and does not (or no longer) answer.
      if (!(isRefused(error) || error instanceof ControllerGone) || limit.aborted) throw error;
      await delay(BUSY_POLL_MS, undefined, { signal: limit }).catch(() => undefined);
    }
  }
  try {
    return await inspectAll(session, options);
  } finally {
    await session.close();
  }
}

function toldBy(answer: StatusReport | { error: string }): StatusReport {
  if (!("error" in answer)) return answer;
  throw new SymvirtError("unreachable", `the running controller cannot tell: ${answer.error}`);
}

async function inspectAll(
  session: Session,
  { signal, peers }: { signal: AbortSignal; peers: boolean },
): Promise<StatusReport> {
  const { cluster, fleet } = session;
  const names = Object.keys(cluster.vms);
  const limit = anySignal([signal, AbortSignal.timeout(cluster.deadlines.hello)]);
  const known: KnownVmm = new Map();
  await Promise.all(
    names.map(async (vm) => {
      try {
        const { host, facts } = await fleet.locate(vm, limit);
        known.set(vm, { host, status: facts.status, cards: facts.cards });
        await fleet.follow(vm, host);
      } catch (error) {
        signal.throwIfAborted();
        const trouble = error instanceof SymvirtError ? error.message : "the VMM does not answer in time";
        known.set(vm, { host: fleet.placement.of(vm).host, status: "unknown", cards: [], trouble });
      }
    }),
  );
  const answering = names.filter((vm) => known.get(vm)?.trouble === undefined);
  await greetAgents(fleet, answering, signal);
  const pictures = peers ? await askPeers(fleet, signal) : undefined;
  return {
    schemaVersion: 1,
    cluster: cluster.name,
    running: null,
    interrupted: interruptedOf(cluster),
    ...snapshotFleet(fleet, known, pictures),
  };
}

function interruptedOf(cluster: Cluster): StatusReport["interrupted"] {
  const found = new Journal(cluster.state).interrupted();
  if (found === undefined) return null;
  const { cycle, vm, from, to } = found.target;
  return {
    ...{ cycle, vm, from, to, phase: found.phase },
    ...{ message: found.message ?? "its controller was killed", what: interruptedWords(found) },
  };
}
