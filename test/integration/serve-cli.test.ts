/** The verbs with --server, in this process, and `symvirt serve` as a process of its own. */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Journal } from "../../src/controller/state/journal.js";
import { readServerJournal } from "../../src/serve/client-journal.js";
import { symvirt } from "../support/cli-in-process.js";
import { expectWell, world } from "../support/controller-world.js";
import { hang } from "../support/fake-cluster.js";
import { ask, readEvents, serverOf, TOKEN } from "../support/serve-world.js";

let folder: string;
let tokenFile: string;
const children: ChildProcess[] = [];
const servers: Server[] = [];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "symvirt-serve-"));
  tokenFile = join(folder, "token");
  writeFileSync(tokenFile, TOKEN, { mode: 0o600 });
});
afterEach(async () => {
  for (const child of children.splice(0)) child.kill("SIGKILL");
  for (const server of servers.splice(0)) await new Promise((resolve) => server.close(resolve));
  rmSync(folder, { recursive: true, force: true });
  vi.restoreAllMocks();
  process.exitCode = undefined;
});

describe("--server", () => {
  it("migrates, evacuates, and shows the status as the verbs do by themselves", async () => {
    const w = world();
    const { unix, http } = await serverOf(w);
    const moved = await symvirt(
      "migrate",
      "vm1",
      "--to",
      "h3",
      "--server",
      unix,
      "--token-file",
      tokenFile,
      "--json",
    );
    expect(moved.code).toBe(0);
    expect(JSON.parse(moved.out)).toMatchObject({ schemaVersion: 1, verb: "migrate", outcome: "done" });
    expect(moved.err).toContain("done");
    expectWell(w, "vm1", "h3");
    const away = await symvirt("evacuate", "h3", "--to", "h1", "--server", http, "--token-file", tokenFile);
    expect(away).toMatchObject({ code: 0, err: expect.stringContaining("h3 is empty: vm1 to h1") });
    const status = await symvirt("status", "--server", http);
    expect(status).toMatchObject({ code: 0, out: expect.stringMatching(/vm1 +h1 +running/) });
    const nothing = await symvirt("abort", "--server", unix, "--token-file", tokenFile);
    expect(nothing).toMatchObject({ code: 0, err: expect.stringContaining("no cycle is running") });
  });

  it("has the exit codes of the verbs: refused, no token, wrong names, nobody there", async () => {
    const w = world();
    const { unix } = await serverOf(w);
    const with_ = ["--server", unix, "--token-file", tokenFile];
    expect(await symvirt("migrate", "vm1", "--to", "h1", ...with_)).toMatchObject({
      code: 3,
      err: expect.stringContaining("vm1 is on h1 already"),
    });
    expect(await symvirt("migrate", "vm1", "--to", "h3", "--server", unix)).toMatchObject({
      code: 3,
      err: expect.stringContaining("--token-file"),
    });
    expect((await symvirt("migrate", "vm9", "--to", "h3", ...with_)).code).toBe(2);
    expect((await symvirt("migrate", "vm1", "--to", "h3", "--dry-run", ...with_)).code).toBe(2);
    expect((await symvirt("status", "--server", "ftp://x")).code).toBe(2);
    expect((await symvirt("status", "--server", unix, "-c", "x")).code).toBe(2);
    expect(await symvirt("status", "--server", `unix:${folder}/none`)).toMatchObject({
      code: 7,
      err: expect.stringContaining("is `symvirt serve` running there?"),
    });
    expect(w.calls).toEqual([]);
  });

  it("tells the journal, as it is and as it grows", async () => {
    const w = world();
    const { unix, http } = await serverOf(w);
    expect(await symvirt("events", "--server", unix)).toEqual({ code: 0, out: "", err: "" });
    await symvirt("migrate", "vm1", "--to", "h3", "--server", unix, "--token-file", tokenFile);
    const words = await symvirt("events", "--server", http);
    expect(words.out).toMatch(/^\S+ cycle 1: migrate vm1 to h3, from h1$/m);
    const lines = (await symvirt("events", "--server", http, "--json")).out.trim().split("\n");
    const local = new Journal(w.cluster.state).read();
    expect(lines.map((l) => JSON.parse(l) as unknown)).toEqual(local);

    const abort = new AbortController();
    const seen: string[] = [];
    const following = readServerJournal(
      { server: unix },
      { follow: true, signal: abort.signal, onRecord: ({ kind }) => seen.push(kind) },
    );
    await vi.waitFor(() => expect(seen).toHaveLength(local.length));
    await symvirt("migrate", "vm1", "--to", "h1", "--server", unix, "--token-file", tokenFile);
    await vi.waitFor(() => expect(seen).toHaveLength(new Journal(w.cluster.state).read().length));
    abort.abort(new Error("enough"));
    await expect(following).rejects.toThrow("enough");
  });

  it("abort stops the server's operation; the migrating client ends with 5", async () => {
    const w = world();
    const { unix } = await serverOf(w);
    w.fault = (op, _, signal) => (op === "detach" ? hang(signal) : undefined);
    const detaches = readEvents(unix, {
      until: ({ data }) => (data.progress as { now: { phase: string } } | null)?.now.phase === "detach",
    });
    const begun = await ask(unix, "/v1/migrate", { body: { vm: "vm1", to: "h3" } });
    await detaches;
    const aborted = await symvirt("abort", "--server", unix, "--token-file", tokenFile);
    expect(aborted.code).toBe(0);
    const { json } = await ask(unix, `/v1/operations/${begun.json.operation?.id}`);
    expect(json.operation).toMatchObject({ exitCode: 5 });
    expectWell(w, "vm1", "h1");
  });

  it("is not asked for by the environment where a cluster file is given", async () => {
    const w = world();
    await serverOf(w);
    vi.stubEnv("SYMVIRT_SERVER", `unix:${folder}/none`);
    expect((await symvirt("status")).code).toBe(7);
    expect((await symvirt("status", "-c", `${folder}/no.yaml`)).err).toContain("no.yaml");
    vi.unstubAllEnvs();
  });

  it("ends with 4 when --timeout passes before anything was touched, as without a server", async () => {
    const w = world();
    const { unix } = await serverOf(w);
    w.fault = (op, _, signal) => (op === "inspect" ? hang(signal) : undefined);
    const late = ["--timeout", "300ms", "--server", unix, "--token-file", tokenFile];
    expect(await symvirt("migrate", "vm1", "--to", "h3", ...late)).toMatchObject({
      code: 4,
      err: expect.stringContaining("--timeout (0.3 s) has passed"),
    });
    expectWell(w, "vm1", "h1");
  });

  it("rolls back at --timeout", async () => {
    const w = world();
    const { unix } = await serverOf(w);
    w.fault = (op, _, signal) => (op === "migrate" ? hang(signal) : undefined);
    const late = ["--timeout", "400ms", "--server", unix, "--token-file", tokenFile];
    expect((await symvirt("migrate", "vm1", "--to", "h3", ...late)).code).toBe(5);
    expectWell(w, "vm1", "h1");
  });
});

describe("symvirt serve as a process", () => {
  const file = () => join(folder, "cluster.yaml");
  const cluster = (extra = "") => `version: 1
name: c
state: ${folder}/state
hosts:
  h1: { address: 10.0.0.1, runtime: ${folder}/h1, cards: { card0: { driver: e1000e } } }
  h2: { address: 10.0.0.2, runtime: ${folder}/h2, cards: { card0: { driver: e1000e } } }
vms:
  vm1: { host: h1, command: [sh, -pidfile, "{runtime}/{vm}.pid"], cards: { hca0: { bus: rp0, card: card0 } } }
deadlines: { hello: 20s, prepare: 20s }
${extra}`;

  function start(...argv: string[]): {
    child: ChildProcess;
    said: () => string;
    until: (text: string) => Promise<void>;
  } {
    const main = join(import.meta.dirname, "../../dist/cli/main.js");
    const child = spawn(process.execPath, [main, "serve", "-c", file(), ...argv], {
      stdio: ["ignore", "ignore", "pipe"],
    });
    children.push(child);
    let all = "";
    const lookers = new Set<() => void>();
    child.stderr?.on("data", (text) => {
      all += String(text);
      for (const look of lookers) look();
    });
    const until = (text: string) =>
      new Promise<void>((resolve) => {
        const look = () => all.includes(text) && resolve();
        lookers.add(look);
        look();
      });
    return { child, said: () => all, until };
  }
  const exitOf = (child: ChildProcess) =>
    new Promise<number | null>((resolve) => child.once("close", (code) => resolve(code)));

  it("ends with 0 at SIGTERM, in an operation after that has been stopped", async () => {
    writeFileSync(file(), cluster());
    // A VMM that says nothing: the migration is still planning when the signal comes.
    mkdirSync(join(folder, "h1"));
    let dialled = () => undefined as void;
    const isDialled = new Promise<void>((resolve) => {
      dialled = resolve;
    });
    const silent = createServer((socket) => {
      socket.on("error", () => undefined);
      dialled();
    });
    servers.push(silent.listen(join(folder, "h1", "vm1.qmp")));
    const { child, said, until } = start("--token-file", tokenFile);
    const ended = exitOf(child);
    await until('"msg":"serves"');
    const unix = `unix:${folder}/state/serve.sock`;
    const begun = await ask(unix, "/v1/migrate", { body: { vm: "vm1", to: "h2" } });
    expect(begun.status).toBe(202);
    await isDialled;
    child.kill("SIGTERM");
    expect(await ended).toBe(0);
    expect(said()).toContain("nothing was touched");
    await expect(ask(unix, "/healthz")).rejects.toMatchObject({ code: "ENOENT" });
  });

  it("refuses at the start what it cannot do, with the exit code of it", async () => {
    writeFileSync(file(), cluster("policy: { reactive: { every: 10m } }\n"));
    const reactive = start("--token-file", tokenFile);
    expect(await exitOf(reactive.child)).toBe(3);
    expect(reactive.said()).toContain(
      "policy.reactive needs checkpoints, and the cluster file names no store",
    );
    writeFileSync(file(), cluster());
    const open = start("--listen", "0.0.0.0:0", "--token-file", tokenFile);
    expect(await exitOf(open.child)).toBe(3);
    const wrong = start("--listen", "nowhere");
    expect(await exitOf(wrong.child)).toBe(2);
    const readable = join(folder, "readable");
    writeFileSync(readable, TOKEN, { mode: 0o644 });
    const token = start("--token-file", readable);
    expect(await exitOf(token.child)).toBe(2);
    expect(token.said()).toContain("can be read by others");
  });
});
