/** `symvirt serve` over scripted guests and VMs: what it answers, to whom, and that it does one thing at a time. */
import { connect } from "node:net";
import { statSync } from "node:fs";
import { describe, expect, it } from "vitest";
import type { CycleReport } from "../../src/controller/report.js";
import { Journal } from "../../src/controller/state/journal.js";
import { SymvirtError } from "../../src/errors.js";
import { Access } from "../../src/serve/access.js";
import { serve } from "../../src/serve/server.js";
import { calm, controllerOf, expectWell, world } from "../support/controller-world.js";
import { hang } from "../support/fake-cluster.js";
import { ALERT_TOKEN, ask, endOf, readEvents, serverOf } from "../support/serve-world.js";

const migrate = { vm: "vm1", to: "h3" };

describe("serve", () => {
  it("migrates, and tells it by the operation, the events, the status and the metrics", async () => {
    const w = world();
    const { unix, http } = await serverOf(w);
    expect(statSync(unix.slice(5)).mode & 0o777).toBe(0o600);
    let begun: ReturnType<typeof ask> | undefined;
    const events = await readEvents(http, {
      onOpen: () => {
        begun = ask(unix, "/v1/migrate", { body: migrate });
      },
      until: ({ event, data }) => event === "operation" && data.state === "ended",
    });
    const answer = await begun;
    expect(answer?.status).toBe(202);
    expect(answer?.json.operation).toMatchObject({
      verb: "migrate",
      by: "request",
      what: "migrate vm1 to h3",
    });
    expect(answer?.headers.location).toBe(`/v1/operations/${answer?.json.operation?.id}`);
    const end = await endOf(http, answer as Awaited<ReturnType<typeof ask>>);
    expect(end).toMatchObject({ exitCode: 0, error: null, state: "ended" });
    expect((end.report as CycleReport).outcome).toBe("done");
    expectWell(w, "vm1", "h3");
    const kinds = events.filter((e) => e.event === "journal").map((e) => e.data.kind);
    expect(kinds[0]).toBe("begin");
    const phases = events.flatMap((e) =>
      e.event === "operation" ? [(e.data.progress as { now: { phase: string } } | null)?.now.phase] : [],
    );
    expect(phases).toContain("pre-copy");
    const status = await ask(http, "/v1/status", { token: null });
    expect(status.json).toMatchObject({
      schemaVersion: 1,
      cluster: "fake",
      server: { version: "0.0.0-test", operation: null, policy: { reactive: null, proactive: null } },
    });
    const metrics = await ask(http, "/metrics", { token: null });
    expect(metrics.text).toContain('symvirt_operations_total{verb="migrate",by="request",result="done"} 1');
    expect(metrics.text).toMatch(/symvirt_phase_duration_seconds_count\{phase="pre-copy"\} 1/);
    expect((await ask(http, "/healthz", { token: null })).json).toEqual({ ok: true });
  });

  it("waits for the end when asked to, and answers a refusal as the operation's end", async () => {
    const w = world();
    const { unix } = await serverOf(w);
    const done = await ask(unix, "/v1/migrate?wait=60", { body: migrate });
    expect(done).toMatchObject({ status: 200, json: { operation: { state: "ended", exitCode: 0 } } });
    const refused = await ask(unix, "/v1/migrate?wait=60", { body: migrate });
    expect(refused.json.operation).toMatchObject({
      exitCode: 3,
      error: { exit: "refused", message: expect.stringContaining("vm1 is on h3 already") },
    });
    const evacuated = await ask(unix, "/v1/evacuate?wait=60", { body: { host: "h2", to: ["h1"] } });
    expect(evacuated.json.operation).toMatchObject({
      exitCode: 0,
      report: { message: "h2 is empty: vm2 to h1" },
    });
  });

  it("takes a checkpoint and restarts from it when the VMs have died", async () => {
    const w = world({ deadlines: calm });
    const { unix } = await serverOf(w, { settleMs: 30_000 });
    const taken = await ask(unix, "/v1/checkpoint?wait=60", { body: { name: "nightly" } });
    expect(taken.json.operation).toMatchObject({ verb: "checkpoint", exitCode: 0 });
    const { checkpoint } = taken.json.operation?.report as { checkpoint: string };
    expect(checkpoint).toMatch(/-nightly$/);
    const body = { checkpoint, on: { vm1: "h3" } };
    expect((await ask(unix, "/v1/restart?wait=60", { body })).json.operation).toMatchObject({
      exitCode: 3,
      error: { message: expect.stringContaining("still runs") },
    });
    w.killAll();
    const restarted = await ask(unix, "/v1/restart?wait=60", { body });
    expect(restarted.json.operation).toMatchObject({ verb: "restart", exitCode: 0, by: "request" });
    expectWell(w, "vm1", "h3");
    expect((await ask(unix, "/metrics", { token: null })).text).toMatch(
      /symvirt_checkpoint_last_success_timestamp_seconds 1\d{9}/,
    );
    const { text } = await ask(unix, "/metrics", { token: null });
    expect(text).toMatch(/symvirt_checkpoint_pause_seconds\{vm="vm1"\} 0\.001/);
    expect(text).toMatch(/symvirt_checkpoint_network_cut_seconds \d/);
    expect(text).toMatch(/symvirt_phase_duration_seconds_count\{phase="save"\} 1/);
  });

  it("lets nobody act without the token, whatever the path is", async () => {
    const w = world();
    const { unix, http } = await serverOf(w);
    const plain = ["migrate", "evacuate", "checkpoint", "restart", "abort", "alerts"];
    // As the router would read them.
    const disguised = [
      "%6digrate",
      "migr%61te?x",
      "abor%74",
      "%72estart",
      "alert%73",
      "../v1/abort",
      "abort;x",
    ];
    for (const path of [...plain, ...disguised]) {
      for (const token of [null, "wrong-token-0123456789abcdef", ""]) {
        const answer = await ask(unix, `/v1/${path}`, { body: "not even JSON", token });
        expect(answer).toMatchObject({ status: 401, json: { ok: false, error: { exit: "refused" } } });
        expect(answer.headers["www-authenticate"]).toContain("Bearer");
      }
    }
    expect((await ask(http, "/v1/migrate", { body: migrate, token: ALERT_TOKEN })).status).toBe(403);
    const basic = { authorization: "Basic c3ltdmlydDpzeW12aXJ0" };
    expect((await ask(http, "/v1/abort", { body: {}, token: null, headers: basic })).status).toBe(401);
    expect(w.calls).toEqual([]);
  });

  it("without a token file tells and does not act", async () => {
    const { unix } = await serverOf(world(), { access: new Access() });
    expect(await ask(unix, "/v1/abort", { body: {} })).toMatchObject({
      status: 403,
      json: { error: { hint: "start it with --token-file" } },
    });
    expect((await ask(unix, "/v1/status", { token: null })).status).toBe(200);
  });

  it("on the loopback answers to this machine's names only", async () => {
    const { http, unix } = await serverOf(world());
    const headers = { host: "evil.example" };
    expect((await ask(http, "/v1/status", { headers })).status).toBe(403);
    expect((await ask(http, "/healthz", { headers: { host: "localhost:9720" } })).status).toBe(200);
    expect((await ask(unix, "/healthz", { headers })).status).toBe(200);
  });

  it.each([
    ["/v1/migrate", { vm: "vm1" }, 422, "to: "],
    ["/v1/migrate", { vm: "vm1", to: "h3", stratgy: "park" }, 422, "stratgy"],
    ["/v1/migrate", { vm: "vm1", to: "h3", strategy: "stop" }, 422, "strategy: "],
    ["/v1/migrate", { vm: "vm1", to: "h3", limits: { maxDowntimeMs: -1 } }, 422, "limits.maxDowntimeMs"],
    ["/v1/migrate", { vm: "vm11", to: "h3" }, 422, 'there is no VM "vm11", did you mean "vm1"?'],
    ["/v1/migrate", [], 422, "expected object"],
    ["/v1/migrate", "{ no json", 400, "JSON"],
    ["/v1/migrate", '{"vm":"vm1","to":"h3","__proto__":{"x":1}}', 400, "not valid JSON"],
    ["/v1/migrate?wait=soon", { vm: "vm1", to: "h3" }, 422, "wait"],
    ["/v1/evacuate", { host: "h1", to: [] }, 422, "to: "],
    ["/v1/evacuate", { host: "h9" }, 422, 'there is no host "h9"'],
    ["/v1/checkpoint", { nmae: "x" }, 422, "nmae"],
    ["/v1/restart", {}, 422, "checkpoint: "],
    ["/v1/restart", { checkpoint: "c1", on: { vm1: "h9" } }, 422, 'there is no host "h9"'],
    ["/v1/restart", { checkpoint: "c1", gone: ["h9"] }, 422, 'there is no host "h9"'],
    ["/v1/abort", { now: true }, 422, "now"],
    ["/v1/alerts", {}, 403, "alerts are not acted upon"],
  ])("%s with %j: %d", async (path, body, status, text) => {
    const w = world();
    const { unix } = await serverOf(w);
    const answer = await ask(unix, path, { body });
    expect([answer.status, answer.json.error?.message]).toEqual([status, expect.stringContaining(text)]);
    expect(answer.json).toMatchObject({ schemaVersion: 1, ok: false });
    expect(w.calls).toEqual([]);
  });

  it("tells of wrong paths, methods, kinds and sizes", async () => {
    const { http } = await serverOf(world());
    expect((await ask(http, "/v2/status")).status).toBe(404);
    expect((await ask(http, "/v1/operations/none")).status).toBe(404);
    const get = await ask(http, "/v1/migrate");
    expect([get.status, get.headers.allow]).toEqual([405, "POST"]);
    const post = await ask(http, "/v1/status", { body: {} });
    expect([post.status, post.headers.allow]).toEqual([405, "GET"]);
    for (const method of ["HEAD", "OPTIONS"]) {
      const { status, headers } = await fetch(`${http}/healthz`, { method });
      expect([status, headers.get("allow")]).toEqual([405, "GET"]);
    }
    expect((await ask(http, "/v1/status?peers=maybe")).status).toBe(422);
    expect((await ask(http, "/v1/events?after=-1")).status).toBe(422);
    const text = { "content-type": "text/plain" };
    expect((await ask(http, "/v1/migrate", { body: "vm=vm1", headers: text })).status).toBe(415);
    const huge = await ask(http, "/v1/migrate", { body: { vm: "x".repeat(70_000), to: "h3" } });
    expect(huge.status).toBe(413);
  });

  it("hangs up on a client that sends its request too slowly", async () => {
    const { http, unix } = await serverOf(world());
    const began = performance.now();
    const end = await new Promise<string>((resolve) => {
      const socket = connect(Number(new URL(http).port), "127.0.0.1");
      let said = "";
      socket.on("data", (part) => {
        said += String(part);
      });
      socket.once("close", () => resolve(said));
      socket.write("POST /v1/migrate HTTP/1.1\r\nHost: localhost\r\n");
    });
    expect(end).toContain("408");
    expect(performance.now() - began).toBeLessThan(10_000);
    expect((await ask(unix, "/healthz")).status).toBe(200);
  });

  it("runs one operation at a time and names it to the second", async () => {
    const w = world();
    const { unix } = await serverOf(w);
    let onDetach = (): void => undefined;
    const inDetach = new Promise<void>((resolve) => (onDetach = resolve));
    w.fault = (op, _, signal) => {
      if (op !== "detach") return undefined;
      onDetach();
      return hang(signal);
    };
    const first = await ask(unix, "/v1/migrate", { body: migrate });
    const second = await ask(unix, "/v1/evacuate", { body: { host: "h2" } });
    expect(second).toMatchObject({
      status: 409,
      json: {
        error: { message: "migrate vm1 to h3 is running" },
        operation: { id: first.json.operation?.id, what: "migrate vm1 to h3" },
      },
    });
    await inDetach;
    expect(await ask(unix, "/v1/abort", { body: { operation: "another" } })).toMatchObject({ status: 409 });
    const stopped = await ask(unix, "/v1/abort?wait=30", { body: {} });
    expect(stopped.json.operation).toMatchObject({
      id: first.json.operation?.id,
      state: "ended",
      exitCode: 5,
    });
    expectWell(w, "vm1", "h1");
    const nothing = await ask(unix, "/v1/abort?wait=30", { body: {} });
    expect(nothing.json.operation).toMatchObject({
      verb: "abort",
      exitCode: 0,
      report: { outcome: "nothing" },
    });
  });

  it("asked twice, an abort is one; its own id stops it", async () => {
    const w = world();
    const { unix } = await serverOf(w);
    await ask(unix, "/v1/migrate?wait=30", { body: migrate });
    const journal = new Journal(w.cluster.state);
    const begun = journal.read().find((r) => r.kind === "begin");
    if (begun?.kind !== "begin") throw new Error("no cycle in the journal");
    journal.append({ ...begun, target: { ...begun.target, cycle: begun.target.cycle + 1 } });
    w.fault = (op, _, signal) => (op === "inspect" ? hang(signal) : undefined);
    const first = await ask(unix, "/v1/abort", { body: {} });
    const second = await ask(unix, "/v1/abort", { body: {} });
    expect(second.json.operation).toMatchObject({ id: first.json.operation?.id, state: "running" });
    w.fault = () => undefined;
    const stopped = await ask(unix, "/v1/abort?wait=30", { body: { operation: first.json.operation?.id } });
    expect(stopped.json.operation).toMatchObject({ state: "ended", error: { exit: "terminated" } });
    const third = await ask(unix, "/v1/abort?wait=30", { body: {} });
    expect(third.json.operation).toMatchObject({ state: "ended", exitCode: 0 });
  });

  it("answers many that ask for the status at once from one look at the VMs", async () => {
    const w = world();
    let looks = 0;
    const { unix } = await serverOf(w, {
      wrap: (verbs) => ({
        ...verbs,
        status: (options, signal) => {
          looks++;
          return verbs.status(options, signal);
        },
      }),
    });
    const answers = await Promise.all(Array.from({ length: 20 }, () => ask(unix, "/v1/status")));
    expect(new Set(answers.map((a) => a.status))).toEqual(new Set([200]));
    expect(looks).toBeLessThan(20);
  });

  it("refuses to listen for others, to serve twice, and a reactive policy it cannot follow", async () => {
    const w = world();
    const verbs = { ...(await serverVerbs(w)) };
    const common = { cluster: w.cluster, verbs, access: new Access(), version: "0", log: () => undefined };
    const others = serve({ ...common, listen: [{ host: "0.0.0.0", port: 0 }], allowRemote: false });
    await expect(others).rejects.toMatchObject({
      exit: "refused",
      message: "other machines could reach this server",
    });
    const open = serve({ ...common, listen: [{ host: "0.0.0.0", port: 0 }], allowRemote: true });
    await expect(open).rejects.toMatchObject({ exit: "refused" });
    await serverOf(w);
    const twice = serve({ ...common, listen: [{ path: `${w.folder}/other.sock` }], allowRemote: false });
    await expect(twice).rejects.toMatchObject({
      exit: "refused",
      message: expect.stringContaining("symvirt serve"),
    });
    const reactive = world({ policy: { reactive: { every: "10m" } } });
    delete (reactive.cluster as { checkpoints?: unknown }).checkpoints;
    await expect(serverOf(reactive)).rejects.toMatchObject({
      message: expect.stringContaining("needs checkpoints"),
    });
    const storeless = world();
    delete (storeless.cluster as { checkpoints?: unknown }).checkpoints;
    const { unix } = await serverOf(storeless);
    for (const [path, body] of [
      ["checkpoint", {}],
      ["restart", { checkpoint: "c1" }],
    ] as const)
      expect(await ask(unix, `/v1/${path}`, { body })).toMatchObject({
        status: 409,
        json: { error: { hint: expect.stringContaining("checkpoints: {path:") } },
      });
  });
});

async function serverVerbs(w: ReturnType<typeof world>) {
  const { controllerVerbs } = await import("../../src/serve/controller-verbs.js");
  return controllerVerbs(await controllerOf(w));
}

describe("events", () => {
  it("go on after Last-Event-ID without a gap, and over a restart of the server", async () => {
    const w = world();
    const first = await serverOf(w);
    await ask(first.unix, "/v1/migrate?wait=60", { body: migrate });
    const isEnd = ({ event, data }: { event: string; data: Record<string, unknown> }) =>
      event === "journal" && data.kind === "end";
    const all = await readEvents(first.http, { path: "/v1/events?after=0", until: isEnd });
    const ids = all.filter((e) => e.event === "journal").map((e) => Number(e.id));
    expect(ids).toEqual(ids.map((_, i) => i + 1));
    await first.running.stop("restarted");
    const second = await serverOf(w);
    const rest = await readEvents(second.http, { lastEventId: "3", until: isEnd });
    expect(rest.filter((e) => e.event === "journal").map((e) => Number(e.id))).toEqual(ids.slice(3));
    // A client of another journal is told so and gets this one from its first line.
    const other = await readEvents(second.http, { lastEventId: "99999", until: isEnd });
    expect(other.some((e) => e.event === "reset")).toBe(true);
    expect(other.filter((e) => e.event === "journal").map((e) => Number(e.id))).toEqual(ids);
  });

  it("a client that reads nothing costs a bounded buffer and nobody else", async () => {
    const w = world();
    const { http, unix } = await serverOf(w);
    const socket = connect(Number(new URL(http).port), "127.0.0.1");
    socket.pause();
    socket.write("GET /v1/events?after=0 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    const done = await ask(unix, "/v1/migrate?wait=60", { body: migrate });
    expect(done.json.operation).toMatchObject({ exitCode: 0 });
    socket.destroy();
  });

  it("end when the server stops", async () => {
    const { http, running } = await serverOf(world());
    const events = await readEvents(http, {
      until: ({ event }) => {
        if (event === "server") void running.stop("test");
        return false;
      },
    });
    expect(events.map((e) => e.event)).toEqual(["hello", "server"]);
  });
});

describe("stop in an operation", () => {
  it("rolls it back, answers no more, and resolves with it", async () => {
    const w = world();
    const { unix, running } = await serverOf(w);
    w.fault = (op, _, signal) => (op === "detach" ? hang(signal) : undefined);
    const detaches = readEvents(unix, {
      until: ({ data }) => (data.progress as { now: { phase: string } } | null)?.now.phase === "detach",
    });
    const begun = await ask(unix, "/v1/migrate", { body: migrate });
    await detaches;
    const last = await running.stop("told to end");
    expect(last).toMatchObject({ id: begun.json.operation?.id, state: "ended", exitCode: 5 });
    expectWell(w, "vm1", "h1");
    await expect(ask(unix, "/healthz")).rejects.toMatchObject({ code: "ENOENT" });
  });
});

describe("alerts", () => {
  const alertsOf = (...alerts: { status: string; host?: string; name?: string }[]) => ({
    version: "4",
    status: "firing",
    receiver: "symvirt",
    groupKey: "{}",
    alerts: alerts.map(({ status, host, name = "HostBroken" }) => ({
      status,
      labels: { alertname: name, ...(host === undefined ? {} : { node: host }) },
      annotations: {},
      startsAt: "2026-01-01T00:00:00Z",
      fingerprint: `${name}-${host ?? "none"}`,
    })),
  });
  const policy = { proactive: { label: "node" } };

  it("evacuate the host they name, with the token of alerts only", async () => {
    const w = world({ policy });
    const { unix, http } = await serverOf(w);
    const ended = readEvents(http, { until: (e) => e.event === "operation" && e.data.state === "ended" });
    const body = alertsOf(
      { status: "firing", host: "h1" },
      { status: "firing", host: "elsewhere" },
      { status: "firing" },
    );
    const answer = await ask(unix, "/v1/alerts", { body, token: ALERT_TOKEN });
    expect(answer.status).toBe(200);
    expect(answer.json.alerts).toMatchObject([
      { host: "h1", verdict: "queued" },
      { host: "elsewhere", verdict: "ignored" },
      { host: null, verdict: "ignored" },
    ]);
    const [last] = (await ended).slice(-1);
    expect(last?.data).toMatchObject({ by: "proactive", verb: "evacuate", exitCode: 0 });
    expectWell(w, "vm1", "h3");
    const again = await ask(unix, "/v1/alerts", { body: alertsOf({ status: "firing", host: "h1" }) });
    expect(again.json.alerts).toMatchObject([{ verdict: "known" }]);
    const status = await ask(unix, "/v1/status");
    expect(status.json.server).toMatchObject({
      policy: { proactive: { hosts: [{ host: "h1", state: "done" }] } },
    });
    const over = await ask(unix, "/v1/alerts", { body: alertsOf({ status: "resolved", host: "h1" }) });
    expect(over.json.alerts).toMatchObject([{ verdict: "resolved" }]);
  });

  it("wait for the running operation, and one that is resolved meanwhile does nothing", async () => {
    const w = world({ policy });
    const { unix } = await serverOf(w);
    w.fault = (op, _, signal) => (op === "detach" ? hang(signal) : undefined);
    await ask(unix, "/v1/migrate", { body: migrate });
    const fire = await ask(unix, "/v1/alerts", { body: alertsOf({ status: "firing", host: "h2" }) });
    expect(fire.json.alerts).toMatchObject([{ verdict: "queued" }]);
    const over = await ask(unix, "/v1/alerts", { body: alertsOf({ status: "resolved", host: "h2" }) });
    expect(over.json.alerts).toMatchObject([{ verdict: "cancelled" }]);
    await ask(unix, "/v1/abort?wait=30", { body: {} });
    expect((await ask(unix, "/v1/status")).json.server).toMatchObject({ operation: null });
    expectWell(w, "vm2", "h2");
  });

  it("of an evacuation that fails are tried again only after the back-off", async () => {
    const w = world({ policy: { proactive: { label: "node", backoff: "1h" } } });
    w.memory.set("h3", 0);
    const { unix, http } = await serverOf(w);
    const ended = readEvents(http, { until: (e) => e.event === "operation" && e.data.state === "ended" });
    await ask(unix, "/v1/alerts", { body: alertsOf({ status: "firing", host: "h1" }) });
    expect((await ended).at(-1)?.data).toMatchObject({ exitCode: 3 });
    const again = await ask(unix, "/v1/alerts", { body: alertsOf({ status: "firing", host: "h1" }) });
    expect(again.json.alerts).toMatchObject([{ verdict: "waits" }]);
  });

  it("that are no alerts of Alertmanager are refused; a large group is taken", async () => {
    const w = world({ policy });
    const { unix } = await serverOf(w);
    expect(
      (await ask(unix, "/v1/alerts", { body: { version: "3", status: "firing", alerts: [] } })).status,
    ).toBe(422);
    const many = alertsOf(...Array.from({ length: 500 }, (_, i) => ({ status: "firing", host: `x${i}` })));
    expect((await ask(unix, "/v1/alerts", { body: many })).status).toBe(200);
    expect((await ask(unix, "/v1/alerts", { body: "x".repeat(2 ** 21) })).status).toBe(413);
  });
});

describe("a broken VMM", () => {
  it("is told by the operation's end with the exit code the command has", async () => {
    const w = world();
    w.fault = (op) => {
      if (op === "inspect") throw new SymvirtError("unreachable", "QMP of vm1 on h1 does not answer");
    };
    const { unix } = await serverOf(w);
    const answer = await ask(unix, "/v1/migrate?wait=60", { body: migrate });
    expect(answer.json.operation).toMatchObject({ exitCode: 7, error: { exit: "unreachable" } });
  });
});
