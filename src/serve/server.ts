/** `symvirt serve`: puts the parts together, listens, and ends in order. */
import { mkdirSync } from "node:fs";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import type { FastifyInstance } from "fastify";
import type { Cluster } from "../controller/cluster-file.js";
import { openStateFolder } from "../controller/session.js";
import { acquireLock, type HeldLock } from "../controller/state/lock.js";
import { CheckpointStore } from "../checkpoint/store.js";
import { SymvirtError } from "../errors.js";
import { lacksCheckpoints } from "../policy/reactive.js";
import type { Access } from "./access.js";
import { buildApp, type Services } from "./app.js";
import { EventStreams } from "./event-streams.js";
import { freeSocket, isLoopback, type ListenAddress, withClosedUmask } from "./listen.js";
import { Metrics } from "./metrics.js";
import { Operations, type OperationView } from "./operations.js";
import { ProactiveRunner } from "./proactive-runner.js";
import { describe, ReactiveRunner } from "./reactive-runner.js";
import type { Verbs } from "./verbs.js";

export interface ServeOptions {
  cluster: Cluster;
  verbs: Verbs;
  access: Access;
  listen: readonly ListenAddress[];
  /** Listening where other machines reach it is allowed. */
  allowRemote: boolean;
  version: string;
  log: (text: string) => void;
}

export interface RunningServer {
  /** "unix:/path" or "http://127.0.0.1:9720", as a client gives them to --server. */
  addresses: string[];
  /**
   * Stops accepting, rolls the running operation back or lets it end, closes all. Resolves with that operation.
   * Idempotent.
   */
  stop(reason: string): Promise<OperationView | undefined>;
}

/** How often progress of an operation is told, at most, in milliseconds; a new phase is told at once. */
const PROGRESS_MS = 500;

/** Starts the server. Throws "refused" when another serves this cluster, or the policy asks for what there is not. */
export async function serve(options: ServeOptions): Promise<RunningServer> {
  const { cluster, verbs } = options;
  const remote = options.listen.filter((address) => !isLoopback(address));
  if (remote.length > 0 && !(options.allowRemote && options.access.knowsAny))
    throw new SymvirtError("refused", "other machines could reach this server", {
      hint: "listen on a unix socket or 127.0.0.1, or give --allow-remote and --token-file (there is no TLS: put a proxy before it)",
    });
  if (cluster.policy.reactive !== undefined && verbs.checkpoints === undefined)
    throw new SymvirtError(
      "refused",
      "policy.reactive needs checkpoints, and the cluster file names no store for them",
      {
        hint: "add checkpoints: {path: /a/folder/that/all/hosts/reach}",
      },
    );
  // A store that cannot be written is told now, not at the first checkpoint.
  if (cluster.checkpoints !== undefined) new CheckpointStore(cluster).open();
  openStateFolder(cluster.state);
  const folder = join(cluster.state, "serve");
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  // Two servers of one cluster would be two policies.
  const lock = await acquireLock(folder, {
    what: `symvirt serve of ${cluster.name}`,
    acting: true,
    waitMs: 1_000,
  });
  try {
    return await start(options, folder, lock);
  } catch (error) {
    lock.release();
    throw error;
  }
}

async function start(options: ServeOptions, folder: string, lock: HeldLock): Promise<RunningServer> {
  const { cluster, verbs, log } = options;
  const operations = new Operations();
  const metrics = new Metrics(options.version);
  if (cluster.checkpoints !== undefined) metrics.checkpointAt(new CheckpointStore(cluster).last()?.createdAt);
  const streams = new EventStreams(join(cluster.state, "journal.jsonl"));
  const stopping = new AbortController();
  const publishOwn = (): void => streams.publish("server", own());
  const proactive = proactiveOf(options, operations, publishOwn);
  const reactive = reactiveOf(options, { operations, metrics, publishOwn, folder, proactive });
  const own = (): object => ({
    version: options.version,
    operation: operations.current ?? null,
    policy: {
      reactive: reactive === undefined ? null : reactiveView(reactive),
      proactive: proactive === undefined ? null : proactiveView(proactive),
    },
  });
  followOperations(operations, { metrics, streams, reactive, proactive, log });
  const services: Services = {
    ...{ cluster, verbs, operations, streams, metrics, access: options.access, proactive, own, log },
    stopping: stopping.signal,
  };
  const apps: FastifyInstance[] = [];
  const addresses: string[] = [];
  const closeAll = async (): Promise<void> => {
    streams.close();
    await Promise.all(apps.map((app) => app.close()));
    lock.release();
  };
  try {
    for (const address of options.listen) {
      const onTcp = !("path" in address);
      const app = buildApp(services, {
        remote: !isLoopback(address),
        checkHost: onTcp && isLoopback(address),
      });
      apps.push(app);
      addresses.push(await listenOn(app, address));
    }
  } catch (error) {
    await closeAll();
    throw error;
  }
  reactive?.start();
  let stopped: Promise<OperationView | undefined> | undefined;
  return {
    addresses,
    stop: (reason) => {
      stopped ??= (async () => {
        for (const app of apps) app.server.close();
        stopping.abort(new SymvirtError("terminated", reason));
        proactive?.stop();
        const [last] = await Promise.all([operations.close(reason), reactive?.stop()]);
        await closeAll();
        return last;
      })();
      return stopped;
    },
  };
}

async function listenOn(app: FastifyInstance, address: ListenAddress): Promise<string> {
  const path = "path" in address ? address.path : undefined;
  try {
    if (path !== undefined) await freeSocket(path);
    await withClosedUmask(path, () => app.listen(address));
  } catch (error) {
    if (error instanceof SymvirtError) throw error;
    const where = "path" in address ? address.path : `${address.host}:${address.port}`;
    const code = (error as NodeJS.ErrnoException).code ?? String(error);
    throw new SymvirtError("refused", `cannot listen on ${where} (${code})`, {
      hint: "another process listens there, or the folder is missing or not yours",
      cause: error,
    });
  }
  if (path !== undefined) return `unix:${path}`;
  const { address: host, port, family } = app.server.address() as AddressInfo;
  return `http://${family === "IPv6" ? `[${host}]` : host}:${port}`;
}

interface Followers {
  metrics: Metrics;
  streams: EventStreams;
  reactive: ReactiveRunner | undefined;
  proactive: ProactiveRunner | undefined;
  log: (text: string) => void;
}

/** Every change of an operation goes to metrics, clients and policies. */
function followOperations(operations: Operations, followers: Followers): void {
  const { metrics, streams, reactive, proactive, log } = followers;
  let phase: string | undefined;
  let told = 0;
  operations.onChange = (change, view) => {
    if (change === "progress") {
      const now = `${view.progress?.target.cycle} ${view.progress?.now.phase}`;
      if (now === phase && performance.now() - told < PROGRESS_MS) return;
      phase = now;
      told = performance.now();
    }
    streams.publish("operation", view);
    if (change === "progress" || change === "stop") return;
    if (change === "begin") metrics.begun(view);
    else {
      metrics.ended(view);
      const { message = "" } = (view.error ?? view.report ?? {}) as { message?: string };
      log(`${view.what}: ended with exit code ${view.exitCode}: ${message}`);
    }
    reactive?.operation(change, view);
    proactive?.operation(change, view);
  };
}

function proactiveOf(
  { cluster, verbs, log }: ServeOptions,
  operations: Operations,
  onChange: () => void,
): ProactiveRunner | undefined {
  const rules = cluster.policy.proactive;
  if (rules === undefined) return undefined;
  const hosts = Object.keys(cluster.hosts);
  return new ProactiveRunner({
    rules: { backoffMs: rules.backoff },
    hosts,
    verbs,
    operations,
    onChange,
    log,
  });
}

interface ReactiveParts {
  operations: Operations;
  metrics: Metrics;
  publishOwn: () => void;
  folder: string;
  proactive: ProactiveRunner | undefined;
}

function reactiveOf(
  { cluster, verbs, log }: ServeOptions,
  { operations, metrics, publishOwn, folder, proactive }: ReactiveParts,
): ReactiveRunner | undefined {
  const rules = cluster.policy.reactive;
  if (rules === undefined || verbs.checkpoints === undefined) return undefined;
  return new ReactiveRunner({
    rules: { everyMs: rules.every, maxRestarts: rules.maxRestarts, backoffMs: rules.backoff },
    ...{ watchMs: rules.watch, verbs, checkpoints: verbs.checkpoints, operations, log },
    file: join(folder, "reactive.json"),
    alerted: () => [...(proactive?.state.keys() ?? [])],
    onLook: (sights) => metrics.looked(sights),
    onChange: (state) => {
      const { phase } = state;
      metrics.policy(phase.name, phase.name === "stuck" || lacksCheckpoints(state));
      if (phase.name === "restarting") metrics.restarts.inc();
      publishOwn();
    },
  });
}

function reactiveView({ state }: ReactiveRunner): object {
  const { phase, attempts, nextCheckpoint, suspects } = state;
  return {
    phase: phase.name,
    message: describe(state),
    needsOperator: phase.name === "stuck" || lacksCheckpoints(state),
    attempts,
    nextCheckpoint: new Date(nextCheckpoint).toISOString(),
    suspects: [...suspects].map(([vm, { looks, why }]) => ({ vm, looks, why })),
  };
}

function proactiveView({ state }: ProactiveRunner): object {
  const hosts = [...state.values()].map(({ alerts, retryAt, ...host }) => ({
    ...host,
    alerts: alerts.size,
    retryAt: host.state === "failed" ? new Date(retryAt).toISOString() : null,
  }));
  return { hosts };
}
