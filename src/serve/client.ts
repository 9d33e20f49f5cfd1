/** The client of `symvirt serve`: what the verbs use when --server is given. */
import { request as httpRequest, type IncomingMessage } from "node:http";
import { createParser, type EventSourceMessage } from "eventsource-parser";
import { ExitCode, type ExitCodeName, SymvirtError } from "../errors.js";
import type { OperationView } from "./operations.js";

export interface ServerTarget {
  /** "unix:/path" or "http://host:port". */
  server: string;
  token?: string;
}

/** An answer must begin within so long; a status may take the server's own deadline "hello" several times. */
const ANSWER_MS = 120_000;
const SILENCE_MS = 60_000;
const MAX_ANSWER = 64 * 1024 * 1024;
const AGAIN_MS = 500;
/** A server that does not come back within so long while an operation is followed. */
const GONE_MS = 60_000;

/** One request. Throws SymvirtError as the server says, "unreachable" when it does not answer. */
export async function call(
  target: ServerTarget,
  method: "GET" | "POST",
  path: string,
  options: { body?: object; signal?: AbortSignal } = {},
): Promise<unknown> {
  const { status, text } = await exchange(target, method, path, options);
  let answer: unknown;
  try {
    answer = JSON.parse(text);
  } catch (cause) {
    throw new SymvirtError(
      "unreachable",
      `${target.server} does not answer as symvirt serve (status ${status})`,
      {
        hint: "check --server",
        cause,
      },
    );
  }
  if (status < 300) return answer;
  throw refusalOf(target, status, answer);
}

/**
 * Begins an operation by POST, tells its progress, and resolves with it when it has ended. When `signal` aborts the
 * server is asked to roll back, once, and the end is waited for.
 */
export async function operate(
  target: ServerTarget,
  path: string,
  options: { body: object; signal: AbortSignal; onProgress?: (view: OperationView) => void },
): Promise<OperationView> {
  const { body, signal, onProgress } = options;
  const { operation } = (await call(target, "POST", path, { body })) as { operation: OperationView };
  const stop = (): void => {
    call(target, "POST", "/v1/abort", {
      body: { operation: operation.id },
    }).catch(() => undefined);
  };
  if (signal.aborted) stop();
  signal.addEventListener("abort", stop, { once: true });
  try {
    return await follow(target, operation, onProgress);
  } finally {
    signal.removeEventListener("abort", stop);
  }
}

/** Throws what the operation ended with, if that was an error; else its report. */
export function reportOf({ error, report, what }: OperationView): object {
  if (error !== null)
    throw new SymvirtError(error.exit, error.message, error.hint === undefined ? {} : { hint: error.hint });
  if (report === null) throw new SymvirtError("internal", `${what} has ended without a report`);
  return report;
}

async function follow(
  target: ServerTarget,
  begun: OperationView,
  onProgress: ((view: OperationView) => void) | undefined,
): Promise<OperationView> {
  let heard = performance.now();
  for (;;) {
    try {
      const { operation } = (await call(target, "GET", `/v1/operations/${begun.id}`)) as {
        operation: OperationView;
      };
      heard = performance.now();
      if (operation.state === "ended") return operation;
      const last = await events(target, begun.id, (view) => {
        heard = performance.now();
        onProgress?.(view);
      });
      if (last?.state === "ended") return last;
    } catch (error) {
      if (!(error instanceof SymvirtError)) throw error;
      // A server that was started again knows nothing of it.
      if (error.exit === "usage") throw gone(target, begun, error);
      if (error.exit !== "unreachable") throw error;
      if (performance.now() - heard > GONE_MS) throw gone(target, begun, error);
    }
    await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
  }
}

function gone({ server }: ServerTarget, { what }: OperationView, cause: unknown): SymvirtError {
  return new SymvirtError("unreachable", `${server} is gone while ${what} was running`, {
    hint: "see `symvirt status` on its machine, and `symvirt abort` if a cycle was interrupted",
    cause,
  });
}

/** Listens to the server's events about one operation until it has ended or the stream has. */
async function events(
  target: ServerTarget,
  id: string,
  onView: (view: OperationView) => void,
): Promise<OperationView | undefined> {
  let last: OperationView | undefined;
  await listen(target, "/v1/events", ({ event, data }) => {
    // It may have ended between the question and the stream: then no event would come.
    if (event === "server")
      return (JSON.parse(data) as { operation: { id: string } | null }).operation?.id === id;
    if (event !== "operation") return true;
    const view = JSON.parse(data) as OperationView;
    // Ours has ended, and another runs already.
    if (view.id !== id) return false;
    last = view;
    onView(view);
    return view.state !== "ended";
  }).catch((error: unknown) => {
    // It has as many readers as it takes: then it is asked again.
    if (!(error instanceof SymvirtError) || error.exit !== "refused") throw error;
  });
  return last;
}

/**
 * Hands on the events of a stream until it ends, is broken off, or `take` wants no more (false). Throws "unreachable" when
 * there is none, and what `signal` is aborted with.
 */
export async function listen(
  target: ServerTarget,
  path: string,
  take: (message: EventSourceMessage) => boolean,
  signal?: AbortSignal,
): Promise<void> {
  const response = await open(target, "GET", path, signal === undefined ? {} : { signal });
  if (response.statusCode !== 200) {
    response.destroy();
    throw refusalOf(target, response.statusCode ?? 0, {});
  }
  // The server says something every 15 s at least (event-streams.ts): a network that is gone says nothing.
  response.setTimeout(SILENCE_MS, () => void response.destroy());
  let more = true;
  const parser = createParser({
    onEvent: (message) => {
      more = more && take(message);
      if (!more) response.destroy();
    },
  });
  response.setEncoding("utf8");
  try {
    for await (const text of response as AsyncIterable<string>) parser.feed(text);
  } catch {
    // Broken off, by us or the server: whoever called asks again.
  }
  signal?.throwIfAborted();
}

async function exchange(
  target: ServerTarget,
  method: string,
  path: string,
  options: { body?: object; signal?: AbortSignal },
): Promise<{ status: number; text: string }> {
  const response = await open(target, method, path, options);
  const parts: Buffer[] = [];
  let bytes = 0;
  try {
    for await (const part of response as AsyncIterable<Buffer>) {
      bytes += part.length;
      if (bytes > MAX_ANSWER) throw new Error(`its answer is over ${MAX_ANSWER} bytes`);
      parts.push(part);
    }
  } catch (cause) {
    options.signal?.throwIfAborted();
    throw unreachable(target, cause);
  }
  return { status: response.statusCode ?? 0, text: Buffer.concat(parts).toString("utf8") };
}

function open(
  target: ServerTarget,
  method: string,
  path: string,
  { body, signal }: { body?: object; signal?: AbortSignal },
): Promise<IncomingMessage> {
  const text = body === undefined ? undefined : JSON.stringify(body);
  const headers: Record<string, string> = {
    ...(text === undefined ? {} : { "content-type": "application/json" }),
    ...(target.token === undefined ? {} : { authorization: `Bearer ${target.token}` }),
  };
  return new Promise((resolve, reject) => {
    const request = httpRequest({ ...addressOf(target.server), method, path, headers, agent: false });
    request.setTimeout(ANSWER_MS, () => request.destroy(new Error("no answer in time")));
    const onAbort = (): void =>
      void request.destroy(signal?.reason instanceof Error ? signal.reason : undefined);
    signal?.addEventListener("abort", onAbort, { once: true });
    request.once("error", (error) => {
      signal?.removeEventListener("abort", onAbort);
      reject(signal?.aborted === true ? (signal.reason as Error) : unreachable(target, error));
    });
    request.once("response", (response) => {
      request.setTimeout(0);
      resolve(response);
    });
    request.end(text);
  });
}

function addressOf(server: string): { socketPath: string; host: string } | { host: string; port: string } {
  if (server.startsWith("unix:/")) return { socketPath: server.slice("unix:".length), host: "localhost" };
  try {
    const { protocol, hostname, port } = new URL(server);
    if (protocol === "http:") return { host: hostname.replace(/^\[|\]$/g, ""), port: port || "80" };
  } catch {
    // Told below.
  }
  throw new SymvirtError("usage", `--server "${server}" is no server`, {
    hint: "give unix:/PATH or http://HOST:PORT",
  });
}

function unreachable({ server }: ServerTarget, cause: unknown): SymvirtError {
  const code =
    (cause as NodeJS.ErrnoException).code ?? (cause instanceof Error ? cause.message : String(cause));
  return new SymvirtError("unreachable", `no answer from ${server} (${code})`, {
    hint: "is `symvirt serve` running there?",
    cause,
  });
}

function refusalOf({ server }: ServerTarget, status: number, answer: unknown): SymvirtError {
  const { error } = answer as { error?: { exit?: unknown; message?: unknown; hint?: unknown } };
  const exit: ExitCodeName =
    typeof error?.exit === "string" && Object.hasOwn(ExitCode, error.exit)
      ? (error.exit as ExitCodeName)
      : "refused";
  const hint = status === 401 ? "give --token-file FILE with the server's token" : error?.hint;
  return new SymvirtError(
    exit,
    typeof error?.message === "string" ? error.message : `${server} answers with status ${status}`,
    typeof hint === "string" ? { hint } : {},
  );
}
