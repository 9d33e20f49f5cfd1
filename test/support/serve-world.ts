/** A server over a fake cluster, on a unix socket and on the loopback, and plain requests to it. */
import { type IncomingHttpHeaders, request } from "node:http";
import { join } from "node:path";
import { afterEach } from "vitest";
import { Access } from "../../src/serve/access.js";
import { controllerVerbs } from "../../src/serve/controller-verbs.js";
import type { OperationView } from "../../src/serve/operations.js";
import { type RunningServer, serve } from "../../src/serve/server.js";
import type { Verbs } from "../../src/serve/verbs.js";
import { controllerOf } from "./controller-world.js";
import type { FakeCluster } from "./fake-cluster.js";

export const TOKEN = "0123456789abcdef0123456789abcdef";
export const ALERT_TOKEN = "alert-0123456789abcdef";

const servers: RunningServer[] = [];
afterEach(async () => {
  for (const server of servers.splice(0)) await server.stop("the test has ended");
});

export interface TestServer {
  running: RunningServer;
  unix: string;
  http: string;
  log: string[];
}

export async function serverOf(
  w: FakeCluster,
  options: { wrap?: (verbs: Verbs) => Verbs; access?: Access; settleMs?: number } = {},
): Promise<TestServer> {
  const { wrap = (v: Verbs) => v } = options;
  const access = options.access ?? new Access().add(TOKEN, "all").add(ALERT_TOKEN, "alerts");
  const log: string[] = [];
  const running = await serve({
    cluster: w.cluster,
    verbs: wrap(controllerVerbs(await controllerOf(w, options.settleMs))),
    access,
    listen: [{ path: join(w.folder, "serve.sock") }, { host: "127.0.0.1", port: 0 }],
    allowRemote: false,
    version: "0.0.0-test",
    log: (text) => log.push(text),
  });
  servers.push(running);
  const [unix = "", http = ""] = running.addresses;
  return { running, unix, http, log };
}

export interface Answer {
  status: number;
  headers: IncomingHttpHeaders;
  text: string;
  json: { error?: { exit: string; message: string; hint?: string }; operation?: OperationView } & Record<
    string,
    unknown
  >;
}

export interface Ask {
  method?: string;
  token?: string | null;
  headers?: Record<string, string>;
  /** An object goes as JSON, a text as it is. */
  body?: object | string;
}

/** One request; with a body it is a POST with the full token unless told otherwise. */
export function ask(server: string, path: string, options: Ask = {}): Promise<Answer> {
  const { body, method = body === undefined ? "GET" : "POST", token = TOKEN } = options;
  const text = typeof body === "object" ? JSON.stringify(body) : body;
  const address = server.startsWith("unix:")
    ? { socketPath: server.slice(5), host: "localhost" }
    : { host: new URL(server).hostname, port: new URL(server).port };
  const headers = {
    ...(text === undefined ? {} : { "content-type": "application/json" }),
    ...(token === null ? {} : { authorization: `Bearer ${token}` }),
    ...options.headers,
  };
  return new Promise((resolve, reject) => {
    const sent = request({ ...address, path, method, headers, agent: false }, (response) => {
      let all = "";
      response.setEncoding("utf8");
      response.on("data", (part: string) => {
        all += part;
      });
      response.once("error", reject);
      response.once("end", () => {
        const isJson = String(response.headers["content-type"]).includes("json");
        resolve({
          status: response.statusCode ?? 0,
          headers: response.headers,
          text: all,
          json: isJson ? JSON.parse(all) : {},
        });
      });
    });
    sent.once("error", reject);
    sent.end(text);
  });
}

export interface SseEvent {
  event: string;
  id: string | undefined;
  data: Record<string, unknown>;
}

/** Reads events until `until` says so of one; then hangs up and returns all of them. */
export function readEvents(
  server: string,
  options: { path?: string; lastEventId?: string; until: (event: SseEvent) => boolean; onOpen?: () => void },
): Promise<SseEvent[]> {
  const { path = "/v1/events", lastEventId, until, onOpen } = options;
  const address = server.startsWith("unix:")
    ? { socketPath: server.slice(5), host: "localhost" }
    : { host: new URL(server).hostname, port: new URL(server).port };
  const headers = lastEventId === undefined ? {} : { "last-event-id": lastEventId };
  return new Promise((resolve, reject) => {
    const events: SseEvent[] = [];
    const sent = request({ ...address, path, headers, agent: false }, (response) => {
      onOpen?.();
      let text = "";
      response.setEncoding("utf8");
      response.on("data", (part: string) => {
        text += part;
        for (let end = text.indexOf("\n\n"); end >= 0; end = text.indexOf("\n\n")) {
          const fields = new Map(
            text
              .slice(0, end)
              .split("\n")
              .map((line): [string, string] => [
                line.split(": ", 1)[0] ?? "",
                line.slice(line.indexOf(": ") + 2),
              ]),
          );
          text = text.slice(end + 2);
          const event = fields.get("event");
          if (event === undefined) continue;
          const found = { event, id: fields.get("id"), data: JSON.parse(fields.get("data") ?? "{}") };
          events.push(found);
          if (until(found)) {
            response.destroy();
            resolve(events);
            return;
          }
        }
      });
      response.once("error", () => resolve(events));
      response.once("end", () => resolve(events));
    });
    sent.once("error", reject);
    sent.end();
  });
}

/** The operation as it has ended, asked for by id. */
export async function endOf(server: string, answer: Answer): Promise<OperationView> {
  const id = answer.json.operation?.id ?? "";
  for (;;) {
    const { json } = await ask(server, `/v1/operations/${id}`);
    if (json.operation === undefined) throw new Error(`no operation ${id}: ${JSON.stringify(json)}`);
    if (json.operation.state === "ended") return json.operation;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
