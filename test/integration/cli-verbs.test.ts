/** The acting verbs as a user calls them: what goes to stdout and stderr, and the exit code. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { spawn } from "node:child_process";
import { createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { symvirt } from "../support/cli-in-process.js";
import { Journal } from "../../src/controller/state/journal.js";

let folder: string;
let file: string;
const servers: Server[] = [];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "symvirt-cli-"));
  file = join(folder, "cluster.yaml");
  writeFileSync(file, cluster());
});
afterEach(async () => {
  for (const server of servers.splice(0)) await new Promise((resolve) => server.close(resolve));
  rmSync(folder, { recursive: true, force: true });
  vi.restoreAllMocks();
  process.exitCode = undefined;
});

function cluster(extra = ""): string {
  return `version: 1
name: c
state: ${folder}/state
hosts:
  h1: { address: 10.0.0.1, runtime: ${folder}/h1, cards: { card0: { driver: e1000e } } }
  h2: { address: 10.0.0.2, runtime: ${folder}/h2, cards: { card0: { driver: e1000e } } }
vms:
  vm1: { host: h1, command: [sh, -pidfile, "{runtime}/{vm}.pid"], cards: { hca0: { bus: rp0, card: card0 } } }
deadlines: { hello: 500, prepare: 2s }
${extra}`;
}

describe("symvirt", () => {
  it("fails when its output is lost, and not for want of a terminal", async () => {
    const entry = join(import.meta.dirname, "../../bin/symvirt");
    const ended = (line: string) =>
      new Promise<number>((resolve) => {
        spawn("sh", ["-c", line, "sh", entry, file], { stdio: "ignore" }).once("close", (code) =>
          resolve(code ?? -1),
        );
      });
    expect(await ended('"$1" checkpoints --help >/dev/full')).toBe(1);
    expect(await ended('"$1" checkpoints --help 2>/dev/full')).toBe(0);
    expect(await ended('"$1" migrate vm1 --to h2 -c "$2" 2>/dev/full')).toBe(7);
  });

  it("QMP socket gone: exit 7, which socket, and what to do", async () => {
    const { code, out, err } = await symvirt("migrate", "vm1", "--to", "h2", "-c", file);
    expect(code).toBe(7);
    expect(out).toBe("");
    expect(err).toContain(`QMP of vm1 on h1 does not answer at ${folder}/h1/vm1.qmp (ENOENT)`);
    expect(err).toContain("the VM is not running on this host");
  });

  it("a QMP socket that says nothing: exit 7 within the deadline", async () => {
    mkdirSync(join(folder, "h1"));
    const server = createServer((socket) => socket.on("error", () => undefined));
    servers.push(server.listen(join(folder, "h1", "vm1.qmp")));
    const { code, err } = await symvirt("migrate", "vm1", "--to", "h2", "-c", file);
    expect(code).toBe(7);
    expect(err).toContain("QMP of vm1 on h1");
  });

  it("unknown VM and host: exit 2 with a suggestion", async () => {
    expect(await symvirt("migrate", "vm11", "--to", "h2", "-c", file)).toMatchObject({
      code: 2,
      err: expect.stringContaining('there is no VM "vm11", did you mean "vm1"?'),
    });
    expect(await symvirt("plan", "vm1", "--to", "h3", "-c", file)).toMatchObject({
      code: 2,
      err: expect.stringContaining('there is no host "h3"'),
    });
  });

  it("a wrong key in the cluster file: exit 2 with its place", async () => {
    writeFileSync(file, cluster("limts: {}\n"));
    const { code, err } = await symvirt("status", "-c", file);
    expect(code).toBe(2);
    expect(err).toContain(`${file}:10:1: limts: unknown key, did you mean "limits"?`);
  });

  it("no cluster file: exit 2", async () => {
    const { code, err } = await symvirt("status", "-c", join(folder, "none.yaml"));
    expect(code).toBe(2);
    expect(err).toContain("cannot read the cluster file");
  });

  it.each([
    [["migrate", "vm1"], "--to <host>"],
    [["migrate", "vm1", "--to", "h2", "--timeout", "soon"], "a duration"],
    [["migrate", "vm1", "--to", "h2", "--strategy", "stop"], "Allowed choices are live, park"],
    [["frobnicate"], "unknown command"],
    [["migrate", "vm1", "--to", "h2", "--frob"], "unknown option"],
  ])("%j: exit 2", async (argv, text) => {
    const { code, err, out } = await symvirt(...argv);
    expect(code).toBe(2);
    expect(err).toContain(text);
    expect(out).toBe("");
  });

  it("--json puts one object on stdout, also for a refusal", async () => {
    const { code, out } = await symvirt("migrate", "vm1", "--to", "h2", "-c", file, "--json");
    expect(code).toBe(7);
    expect(JSON.parse(out)).toMatchObject({ schemaVersion: 1, ok: false, error: { exit: "unreachable" } });
    const plan = await symvirt("plan", "vm1", "--to", "h1", "-c", file, "--json");
    expect(plan.code).toBe(3);
    expect(JSON.parse(plan.out)).toMatchObject({ schemaVersion: 1, ok: false, target: null });
  });

  it("status shows a VM that does not answer and exits 0", async () => {
    const { code, out } = await symvirt("status", "-c", file, "--json");
    expect(code).toBe(0);
    const status = JSON.parse(out);
    expect(status.vms).toMatchObject([{ vm: "vm1", status: "unknown", agent: { answers: false } }]);
    const text = await symvirt("status", "-c", file);
    expect(text.out).toMatch(/vm1 +h1 +unknown +- +agent silent/);
  });

  it("doctor says what stands against it and exits 3", async () => {
    const { code, out } = await symvirt("doctor", "vm1", "-c", file);
    expect(code).toBe(3);
    expect(out).toContain("vm1 on h1: cannot be migrated");
    expect(out).toContain("does not answer");
  });

  it("an interrupted cycle is refused with exit 3 and told by events", async () => {
    await symvirt("status", "-c", file);
    const target = {
      cycle: 12,
      vm: "vm1",
      from: "h1",
      to: "h2",
      cards: [],
      jobs: [],
      strategy: "live" as const,
      leave: true,
      comeBack: true,
    };
    new Journal(join(folder, "state")).append({ kind: "begin", pid: 1, verb: "migrate", target });
    const { code, err } = await symvirt("migrate", "vm1", "--to", "h2", "-c", file);
    expect(code).toBe(3);
    expect(err).toContain("cycle 12 (migrate vm1 to h2) was interrupted");
    expect(err).toContain("symvirt abort");
    const events = await symvirt("events", "-c", file);
    expect(events.out).toContain("cycle 12: migrate vm1 to h2, from h1");
    const abort = await symvirt("abort", "-c", file);
    expect(abort.code).toBe(6);
    expect(abort.err).toContain("vm1 runs neither on h1 nor on h2");
  });

  it("abort with nothing to do exits 0", async () => {
    expect(await symvirt("abort", "-c", file)).toMatchObject({
      code: 0,
      err: expect.stringContaining("no cycle"),
    });
  });

  it("--version and --help exit 0 on stdout", async () => {
    expect(await symvirt("--version")).toMatchObject({
      code: 0,
      out: expect.stringMatching(/^\d+\.\d+\.\d+\n$/),
    });
    for (const verb of ["plan", "migrate", "status", "abort", "doctor", "events"])
      expect(await symvirt(verb, "--help")).toMatchObject({
        code: 0,
        out: expect.stringContaining("Example:"),
      });
  });
});
