/** The HTTP interface (docs/serve.md): routes, who may call them, and how a refusal is told. */
import Fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from "fastify";
import { ZodError, type z } from "zod";
import type { Cluster } from "../controller/cluster-file.js";
import { knownHost, knownVm } from "../controller/plan.js";
import { SymvirtError } from "../errors.js";
import { hostAlerts, webhook } from "../policy/alerts.js";
import type { Access, Scope } from "./access.js";
import { type EventStreams, MAX_CLIENTS } from "./event-streams.js";
import { namesLoopback } from "./listen.js";
import type { Metrics } from "./metrics.js";
import { errorOf, OperationBusy, type OperationOrder, type Operations } from "./operations.js";
import type { ProactiveRunner } from "./proactive-runner.js";
import { bodies, complaints, defined, eventsQuery, statusQuery, waitQuery } from "./requests.js";
import type { CheckpointVerbs, Run, Verbs } from "./verbs.js";

export interface Services {
  cluster: Cluster;
  verbs: Verbs;
  operations: Operations;
  streams: EventStreams;
  metrics: Metrics;
  access: Access;
  proactive: ProactiveRunner | undefined;
  /** The server's own part of the status. */
  own: () => object;
  /** Aborted when the server stops. */
  stopping: AbortSignal;
  log: (text: string) => void;
}

export interface Exposure {
  /** Reached from other machines: reading needs a token too. */
  remote: boolean;
  /** TCP on the loopback: the Host header must name this machine. */
  checkHost: boolean;
}

const BODY_LIMIT = 64 * 1024;
const ALERTS_LIMIT = 1024 * 1024;
/** The whole of a request must be here within so many milliseconds, its head within half of it. */
const REQUEST_MS = 10_000;
const MAX_CONNECTIONS = 256;
const reads = ["/healthz", "/metrics", "/v1/status", "/v1/events"];
const acts = ["/v1/migrate", "/v1/evacuate", "/v1/checkpoint", "/v1/restart", "/v1/abort", "/v1/alerts"];

/** An answer that is no success. */
class Refusal extends Error {
  constructor(
    readonly status: number,
    message: string,
    readonly hint?: string,
    readonly extra: object = {},
  ) {
    super(message);
  }
}

/** The interface on one listening address; the caller listens and closes. */
export function buildApp(services: Services, { remote, checkHost }: Exposure): FastifyInstance {
  const { access, metrics } = services;
  const app = Fastify({
    logger: false,
    bodyLimit: BODY_LIMIT,
    exposeHeadRoutes: false,
    requestTimeout: REQUEST_MS,
    keepAliveTimeout: 5_000,
    forceCloseConnections: true,
    http: { headersTimeout: REQUEST_MS / 2, connectionsCheckingInterval: 500 },
  });
  app.server.maxConnections = MAX_CONNECTIONS;
  // JSON only: anything else is 415.
  app.removeContentTypeParser("text/plain");

  app.addHook("onRequest", async (request, reply) => {
    reply.header("x-content-type-options", "nosniff").header("cache-control", "no-store");
    if (checkHost && !namesLoopback(request.headers.host))
      throw new Refusal(
        403,
        `this server is not "${request.headers.host ?? ""}"`,
        "name it localhost or 127.0.0.1",
      );
    // Answered with 405: there is nothing to be let at.
    if (request.method === "HEAD" || request.method === "OPTIONS") return;
    // By the route the router has found: it decodes a path before it compares. What only tells is asked for by GET.
    const route = request.routeOptions.url;
    const isAct = request.method !== "GET" || acts.includes(pathOf(request));
    if (!isAct && (route === "/healthz" || !remote)) return;
    authorize(access, request, reply, isAct && route === "/v1/alerts" ? "alerts" : "all");
  });
  app.addHook("onResponse", async (request, reply) => {
    const route = request.routeOptions.url ?? "other";
    metrics.requests.inc({ route, code: String(reply.statusCode) });
  });
  app.setNotFoundHandler(async (request, reply) => {
    const path = pathOf(request);
    const isRead = reads.includes(path) || path.startsWith("/v1/operations/");
    if (!isRead && !acts.includes(path))
      throw new Refusal(404, `there is no ${path}`, "docs/serve.md lists all paths");
    const allow = isRead ? "GET" : "POST";
    reply.header("allow", allow);
    throw new Refusal(405, `${path} takes ${allow} only`);
  });
  app.setErrorHandler(async (error, request, reply) => tell(services, error, request, reply));

  readRoutes(app, services);
  actRoutes(app, services);
  return app;
}

function readRoutes(app: FastifyInstance, services: Services): void {
  const { verbs, streams, metrics, operations, own } = services;
  app.get("/healthz", async () => ({ ok: true }));
  app.get("/metrics", async (_, reply) => {
    reply.type(metrics.registry.contentType);
    return await metrics.registry.metrics();
  });
  // Clients that ask at once share one look at the VMs.
  const asked = new Map<boolean, Promise<object>>();
  app.get("/v1/status", async (request) => {
    const peers = parse(statusQuery, request.query).peers === "true";
    const there = asked.get(peers);
    const answer = there ?? verbs.status({ peers }, services.stopping).finally(() => asked.delete(peers));
    asked.set(peers, answer);
    return { ...(await answer), server: own() };
  });
  app.get<{ Params: { id: string } }>("/v1/operations/:id", async (request) => {
    const found = operations.find(request.params.id);
    if (found !== undefined) return { schemaVersion: 1, operation: found };
    throw new Refusal(
      404,
      "there is no such operation",
      "only the last 100 are kept, and none over a restart",
    );
  });
  app.get("/v1/events", async (request, reply) => {
    const last = request.headers["last-event-id"];
    const query = parse(eventsQuery, request.query);
    const after = last === undefined ? query.after : parse(eventsQuery, { after: last }).after;
    if (streams.clients >= MAX_CLIENTS) throw new Refusal(503, `${MAX_CLIENTS} clients read events already`);
    reply.hijack();
    const now = new Map<string, object>([["server", own()]]);
    if (operations.current !== undefined) now.set("operation", operations.current);
    streams.open(reply.raw, after, now);
  });
}

function actRoutes(app: FastifyInstance, services: Services): void {
  const { cluster, verbs, proactive } = services;
  const act = (path: string, handle: (request: FastifyRequest) => Act): void => {
    app.post(path, async (request, reply) => await begin(services, handle(request), request, reply));
  };
  act("/v1/migrate", ({ body }) => {
    const order = defined(parse(bodies.migrate, body));
    knownVm(cluster, order.vm);
    knownHost(cluster, order.to);
    const what = `migrate ${order.vm} to ${order.to}`;
    return { verb: "migrate", what, work: (run) => verbs.migrate(order, run) };
  });
  act("/v1/evacuate", ({ body }) => {
    const order = defined(parse(bodies.evacuate, body));
    for (const host of [order.host, ...(order.to ?? [])]) knownHost(cluster, host);
    const what = `evacuate ${order.host}`;
    return { verb: "evacuate", what, work: (run) => verbs.evacuate(order, run) };
  });
  act("/v1/checkpoint", ({ body }) => {
    const order = defined(parse(bodies.checkpoint, body ?? {}));
    const there = haveCheckpoints(verbs);
    return { verb: "checkpoint", what: "checkpoint", work: (run) => there.checkpoint(order, run) };
  });
  act("/v1/restart", ({ body }) => {
    const order = defined(parse(bodies.restart, body));
    for (const vm of Object.keys(order.on ?? {})) knownVm(cluster, vm);
    for (const host of [...Object.values(order.on ?? {}), ...(order.gone ?? [])]) knownHost(cluster, host);
    const there = haveCheckpoints(verbs);
    const what = `restart from ${order.checkpoint}`;
    return { verb: "restart", what, work: (run) => there.restart(order, run) };
  });
  act("/v1/abort", ({ body }) => {
    const { operation, ...order } = defined(parse(bodies.abort, body ?? {}));
    for (const host of order.gone ?? []) knownHost(cluster, host);
    if (operation !== undefined && services.operations.current?.id !== operation)
      throw new Refusal(409, `operation ${operation} is not running`, "it has ended: GET /v1/operations/ID");
    // Asked for twice, an abort is one; who wants that one stopped gives its id.
    const joins = operation === undefined && services.operations.current?.verb === "abort";
    return { verb: "abort", what: "abort", joins, work: (run) => verbs.abort(order, run) };
  });
  app.post("/v1/alerts", { bodyLimit: ALERTS_LIMIT }, async (request) => {
    const label = cluster.policy.proactive?.label;
    if (proactive === undefined || label === undefined)
      throw new Refusal(403, "alerts are not acted upon", "add policy.proactive to the cluster file");
    const alerts = proactive.take(hostAlerts(parse(webhook, request.body), label));
    for (const { verdict } of alerts) services.metrics.alerts.inc({ verdict });
    return { schemaVersion: 1, alerts };
  });
}

interface Act {
  verb: OperationOrder["verb"];
  what: string;
  /** The operation that runs is what is asked for. */
  joins?: boolean;
  work: (run: Run) => Promise<object>;
}

/** Begins the operation, or stops the running one; 202 with it, or 200 when it has ended within `wait` seconds. */
async function begin(
  services: Services,
  { verb, what, work, joins = false }: Act,
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<object> {
  const { operations, log, stopping } = services;
  const { wait } = parse(waitQuery, request.query);
  const joined = joins ? operations.running : undefined;
  const stopped =
    verb === "abort" && joined === undefined ? operations.stop("stopped by POST /v1/abort") : undefined;
  const begun = joined ?? stopped ?? operations.begin({ verb, by: "request", what }, work);
  if (joined === undefined)
    log(stopped === undefined ? `${what}: begun by request` : `${begun.view.what}: stopped by request`);
  if (wait > 0) await endOf(begun.ended, wait * 1000, stopping);
  reply.code(begun.view.state === "ended" ? 200 : 202).header("location", `/v1/operations/${begun.view.id}`);
  return { schemaVersion: 1, operation: begun.view };
}

async function endOf(ended: Promise<unknown>, ms: number, stopping: AbortSignal): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  let onStop = (): void => undefined;
  const limit = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, ms);
    onStop = resolve;
    stopping.addEventListener("abort", onStop, { once: true });
  });
  await Promise.race([ended, limit]);
  clearTimeout(timer);
  stopping.removeEventListener("abort", onStop);
}

function haveCheckpoints({ checkpoints }: Verbs): CheckpointVerbs {
  if (checkpoints !== undefined) return checkpoints;
  throw new Refusal(
    409,
    "the cluster file names no store for checkpoints",
    "add checkpoints: {path: /a/folder/that/all/hosts/reach}, and start the server again",
  );
}

function pathOf({ url }: FastifyRequest): string {
  return url.split("?", 1)[0] ?? "";
}

function parse<T extends z.ZodType>(schema: T, value: unknown): z.infer<T> {
  return schema.parse(value);
}

function authorize(access: Access, request: FastifyRequest, reply: FastifyReply, needs: Scope): void {
  if (!access.knowsAny)
    throw new Refusal(403, "this server only tells and does not act", "start it with --token-file");
  const scope = access.scopeOf(request.headers.authorization);
  if (scope === undefined) {
    reply.header("www-authenticate", 'Bearer realm="symvirt"');
    throw new Refusal(
      401,
      "a bearer token is needed, and this is none of ours",
      "send Authorization: Bearer TOKEN",
    );
  }
  if (scope !== needs && scope !== "all") throw new Refusal(403, "this token is for POST /v1/alerts only");
}

/** An error as an answer. What is not foreseen is logged and told without detail. */
function tell(services: Services, error: unknown, request: FastifyRequest, reply: FastifyReply): object {
  const answer = (
    status: number,
    told: { exit: string; message: string; hint?: string },
    extra = {},
  ): object => {
    reply.code(status);
    return { schemaVersion: 1, ok: false, error: told, ...extra };
  };
  if (error instanceof Refusal) {
    const { status, message, hint, extra } = error;
    if (status === 401) services.log(`${request.method} ${pathOf(request)}: ${message}`);
    const exit = status === 404 || status === 405 ? "usage" : status === 503 ? "unreachable" : "refused";
    return answer(status, { exit, message, ...(hint === undefined ? {} : { hint }) }, extra);
  }
  if (error instanceof OperationBusy)
    return answer(
      409,
      { exit: "refused", message: error.message, hint: "see `symvirt status`, `symvirt abort`" },
      { operation: error.running },
    );
  if (error instanceof ZodError) return answer(422, { exit: "usage", message: complaints(error) });
  if (error instanceof SymvirtError) {
    const status = { usage: 422, refused: 409, unreachable: 503, interrupted: 503, terminated: 503 } as const;
    const code = (status as Readonly<Record<string, number>>)[error.exit] ?? 500;
    return answer(code, errorOf(error));
  }
  const status = (error as { statusCode?: unknown }).statusCode;
  if (typeof status === "number" && status >= 400 && status < 500)
    return answer(status, {
      exit: "usage",
      message: error instanceof Error ? error.message : "a bad request",
    });
  services.log(`internal error: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
  return answer(500, { exit: "internal", message: "internal error, see the server's log" });
}
