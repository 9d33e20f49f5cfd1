/** The reactive policy of `symvirt serve` over fake VMs, a real store and real fence commands. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { CheckpointStore } from "../../src/checkpoint/store.js";
import { Journal } from "../../src/controller/state/journal.js";
import { SymvirtError } from "../../src/errors.js";
import { calm, controllerOf, expectWell, world } from "../support/controller-world.js";
import type { FakeCluster } from "../support/fake-cluster.js";
import { ask, readEvents, serverOf, type TestServer } from "../support/serve-world.js";

interface Rules {
  every?: string;
  maxRestarts?: number;
  backoff?: string;
  fence?: string[];
}

/** A served cluster; hosts in `silent` run no command, whatever still runs on them. */
async function served(rules: Rules = {}) {
  const reactive = { every: "1h", watch: 30, backoff: 50, ...rules };
  const w = world({ deadlines: calm, policy: { reactive } });
  const silent = new Set<string>();
  w.fault = (_, where) => {
    const [, host = ""] = where.split("@");
    if (silent.has(host))
      throw new SymvirtError("unreachable", `host ${host} does not run a command (status 255): no route`);
  };
  const server = await serverOf(w, { settleMs: 30_000 });
  return { w, server, silent };
}

async function checkpointed(rules: Rules = {}) {
  const all = await served(rules);
  const taken = await ask(all.server.unix, "/v1/checkpoint?wait=60", { body: {} });
  expect(taken.json.operation?.exitCode).toBe(0);
  await seenAlive(all.server);
  const { checkpoint } = taken.json.operation?.report as { checkpoint: string };
  return { ...all, checkpoint };
}

interface PolicyView {
  phase: string;
  message: string;
  needsOperator: boolean;
  attempts: number;
}

async function policyOf({ unix }: TestServer): Promise<PolicyView> {
  const { json } = await ask(unix, "/v1/status");
  return (json.server as { policy: { reactive: PolicyView } }).policy.reactive;
}

/** The policy has looked, and found both VMs alive: only then they can die for it. */
async function seenAlive({ unix }: TestServer): Promise<void> {
  for (;;) {
    const { text } = await ask(unix, "/metrics");
    if (
      /symvirt_vm_process_alive\{vm="vm1"\} 1/.test(text) &&
      /symvirt_vm_process_alive\{vm="vm2"\} 1/.test(text)
    )
      return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** Resolves when the policy's phase is this one, as its events tell. */
async function reaches(server: TestServer, phase: string): Promise<void> {
  const nowOf = (data: Record<string, unknown>) =>
    (data as { policy: { reactive: PolicyView } }).policy.reactive.phase;
  await readEvents(server.http, { until: ({ event, data }) => event === "server" && nowOf(data) === phase });
}

/** The end of the next restart that the policy makes; ask before the death. */
async function restartEnd(server: TestServer): Promise<Record<string, unknown>> {
  const isEnd = (e: { event: string; data: Record<string, unknown> }) =>
    e.event === "operation" && e.data.verb === "restart" && e.data.state === "ended";
  const events = await readEvents(server.http, { until: isEnd });
  return events.at(-1)?.data ?? {};
}

const kills = (w: FakeCluster): string[] => w.calls.filter((call) => call.startsWith("kill"));

describe("the reactive policy", () => {
  it("takes a checkpoint so often, and none while VMs are not well", async () => {
    const { w, server } = await served({ every: "100ms" });
    const isThird = (() => {
      let ended = 0;
      return ({ event, data }: { event: string; data: Record<string, unknown> }) =>
        event === "operation" && data.verb === "checkpoint" && data.state === "ended" && ++ended === 3;
    })();
    const events = await readEvents(server.http, { until: isThird });
    expect(events.at(-1)?.data).toMatchObject({ by: "reactive", exitCode: 0 });
    expect(new CheckpointStore(w.cluster).list().length).toBeGreaterThanOrEqual(3);
    expectWell(w, "vm1", "h1");
  });

  it("restarts all VMs from the last checkpoint when one has died, the others killed before", async () => {
    const { w, server, checkpoint } = await checkpointed();
    const end = restartEnd(server);
    w.die("vm1", "h1");
    expect(await end).toMatchObject({
      by: "reactive",
      what: `restart from ${checkpoint} (reactive policy)`,
      exitCode: 0,
    });
    expect(kills(w).sort()).toEqual(["kill vm1,vm2@h1", "kill vm1,vm2@h2", "kill vm1,vm2@h3"]);
    expect(w.calls.findLastIndex((c) => c.startsWith("kill"))).toBeLessThan(
      w.calls.findIndex((c) => c.startsWith("restore")),
    );
    expectWell(w, "vm1", "h1");
    expectWell(w, "vm2", "h2");
    expect((await ask(server.unix, "/metrics")).text).toContain("symvirt_restarts_total 1");
    expect(await policyOf(server)).toMatchObject({ phase: "watching", attempts: 1 });
  });

  it("does it again for a second death, and counts over a restart of the server", async () => {
    const { w, server } = await checkpointed();
    for (const host of ["h1", "h1"]) {
      await seenAlive(server);
      const end = restartEnd(server);
      w.die("vm1", host);
      expect(await end).toMatchObject({ exitCode: 0 });
    }
    await server.running.stop("started anew");
    const again = await serverOf(w, { settleMs: 30_000 });
    expect(await policyOf(again)).toMatchObject({ attempts: 2 });
  });

  it("needs a person when a host is silent and no command can switch it off; it kills nothing anywhere, and goes on when the host is back", async () => {
    const { w, server, silent } = await checkpointed();
    const stuck = reaches(server, "stuck");
    silent.add("h1");
    await stuck;
    const view = await policyOf(server);
    expect(view.needsOperator).toBe(true);
    expect(view.message).toContain("the old VMs may still run");
    expect(view.message).toContain("switch h1 off");
    expect((await ask(server.unix, "/metrics")).text).toContain("symvirt_policy_needs_operator 1");
    expect(w.calls.filter((c) => c.startsWith("restore"))).toEqual([]);
    expect([...w.processes.keys()].sort()).toEqual(["vm1@h1", "vm2@h2"]);
    const watching = reaches(server, "watching");
    silent.clear();
    await watching;
    expect(w.calls.filter((c) => c.startsWith("restore"))).toEqual([]);
    expectWell(w, "vm1", "h1");
    expectWell(w, "vm2", "h2");
  });

  it("switches a silent host off by the site's command, and restarts elsewhere", async () => {
    const { w, server, silent } = await checkpointed({
      fence: ["sh", "-c", 'echo off > "$0"', "{host}.off"],
    });
    w.cluster.policy.reactive?.fence?.splice(3, 1, join(w.folder, "{host}.off"));
    const end = restartEnd(server);
    silent.add("h1");
    expect(await end).toMatchObject({ exitCode: 0 });
    expect(readFileSync(join(w.folder, "h1.off"), "utf8")).toBe("off\n");
    expect(existsSync(join(w.folder, "h2.off"))).toBe(false);
    w.processes.delete("vm1@h1"); // it was switched off
    expectWell(w, "vm1", "h3");
    expectWell(w, "vm2", "h2");
  });

  it("switches nothing off when no host at all answers: the fault may be this machine's", async () => {
    const { w, server, silent } = await checkpointed({
      fence: ["sh", "-c", 'echo off > "$0"', "{host}.off"],
    });
    w.cluster.policy.reactive?.fence?.splice(3, 1, join(w.folder, "{host}.off"));
    const stuck = reaches(server, "stuck");
    for (const host of ["h1", "h2", "h3"]) silent.add(host);
    await stuck;
    expect((await policyOf(server)).message).toContain("none of the hosts answers this machine");
    expect(readdirSync(w.folder).filter((name) => name.endsWith(".off"))).toEqual([]);
    const watching = reaches(server, "watching");
    silent.clear();
    await watching;
    expectWell(w, "vm1", "h1");
    expectWell(w, "vm2", "h2");
  });

  it("asks a host again before it is taken for silent", async () => {
    const { w, server } = await checkpointed({ fence: ["false"] });
    const before = w.fault;
    let lost = 0;
    const end = restartEnd(server);
    w.die("vm1", "h1");
    w.fault = (op, where, signal) => {
      if (op === "kill" && where.endsWith("@h2") && ++lost === 1)
        throw new SymvirtError("unreachable", "host h2 does not run a command (status 255): reset");
      return before(op, where, signal);
    };
    expect(await end).toMatchObject({ exitCode: 0 });
    expect(lost).toBeGreaterThan(1);
    expectWell(w, "vm2", "h2");
  });

  it("does not believe a fence command that fails", async () => {
    const fence = ["sh", "-c", "echo no such power outlet >&2; exit 4"];
    const { w, server, silent } = await checkpointed({ fence });
    const stuck = reaches(server, "stuck");
    silent.add("h1");
    await stuck;
    const { message } = await policyOf(server);
    expect(message).toContain("status 4: no such power outlet");
    expect(w.calls.filter((c) => c.startsWith("restore"))).toEqual([]);
  });

  it("a silent host that had none of the VMs does not stand in the way", async () => {
    const { w, server, silent } = await checkpointed();
    const end = restartEnd(server);
    silent.add("h3");
    w.die("vm2", "h2");
    expect(await end).toMatchObject({ exitCode: 0 });
    expectWell(w, "vm2", "h2");
  });

  it("gives up after so many restarts that did not help, with the reason", async () => {
    const { w, server } = await checkpointed({ maxRestarts: 2 });
    const before = w.fault;
    w.fault = (op, where, signal) => {
      if (op === "restore") throw new SymvirtError("rolledBack", "the stream is no good");
      return before(op, where, signal);
    };
    const stuck = reaches(server, "stuck");
    w.die("vm1", "h1");
    await stuck;
    const view = await policyOf(server);
    expect(view.message).toContain("2 restarts did not help");
    expect(view.message).toContain("the stream is no good");
    expect(w.processes.size).toBe(0);
  });

  it("without a checkpoint it kills nothing and says so", async () => {
    const { w, server } = await served();
    await seenAlive(server);
    const stuck = reaches(server, "stuck");
    w.die("vm1", "h1");
    await stuck;
    expect((await policyOf(server)).message).toContain("there is no complete checkpoint");
    expect(kills(w)).toEqual([]);
    expect(w.runsOn("vm2")).toBe("h2");
  });

  it.each(["migrate", "restart"] as const)("a %s that was cut off is ended first", async (verb) => {
    const { w, server } = await checkpointed();
    const journal = new Journal(w.cluster.state);
    const begun = journal.read().find((r) => r.kind === "begin");
    if (begun?.kind !== "begin") throw new Error("no cycle in the journal");
    const { set, ...target } = begun.target;
    const cut = { ...target, cycle: target.cycle + 7, vm: "vm1", from: "h1" };
    if (verb === "migrate") journal.append({ kind: "begin", pid: 1, verb, target: { ...cut, to: "h3" } });
    else if (set !== undefined)
      journal.append({ kind: "begin", pid: 1, verb, target: { ...cut, to: "h1", set } });
    const end = restartEnd(server);
    w.die("vm1", "h1");
    expect(await end).toMatchObject({ exitCode: 0 });
    expectWell(w, "vm1", "h1");
    const controller = await controllerOf(w);
    expect(await controller.abort()).toMatchObject({ outcome: "nothing" });
  });
});
