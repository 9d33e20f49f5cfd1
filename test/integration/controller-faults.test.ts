/** Every way back: what fails, where the VM is afterwards, and what the operator is told. */
import { mkdirSync, renameSync, rmdirSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { Phase } from "../../src/controller/cycle.js";
import { openStateFolder } from "../../src/controller/session.js";
import { acquireLock, lockHolders } from "../../src/controller/state/lock.js";
import { SymvirtError } from "../../src/errors.js";
import { controllerOf, expectWell, world } from "../support/controller-world.js";
import { hang } from "../support/fake-cluster.js";

const boom = (text: string) => new SymvirtError("needsOperator", text);

describe("a resume at the destination", () => {
  const lost = () => new SymvirtError("unreachable", "QMP of vm1 on h3: the connection broke");

  it("whose answer is lost is looked at: a VM that runs there is not taken back", async () => {
    const w = world();
    w.fault = (op, where) => {
      if (op !== "resume" || where !== "vm1@h3") return undefined;
      Object.assign(w.processes.get(where) ?? {}, { status: "running" });
      throw lost();
    };
    expect((await (await controllerOf(w)).migrate({ vm: "vm1", to: "h3" })).outcome).toBe("done");
    expect(w.calls).not.toContain("resume vm1@h1");
    expectWell(w, "vm1", "h3");
  });

  it("that nobody knows of ends neither side, and a person is told", async () => {
    const w = world();
    let silent = false;
    w.fault = (op, where) => {
      if (where !== "vm1@h3") return undefined;
      if (op === "resume") {
        silent = true;
        Object.assign(w.processes.get(where) ?? {}, { status: "running" });
      }
      if (silent && ["resume", "inspect"].includes(op)) throw lost();
      return undefined;
    };
    const controller = await controllerOf(w);
    const { outcome, message } = await controller.migrate({ vm: "vm1", to: "h3" });
    expect([outcome, message]).toEqual([
      "needs-operator",
      expect.stringContaining("nobody knows whether vm1 runs on h3"),
    ]);
    expect(w.calls.filter((call) => /^(end vm1@h3|resume vm1@h1)/.test(call))).toEqual([]);
    w.fault = () => undefined;
    expect((await controller.abort()).outcome).toBe("done");
    expectWell(w, "vm1", "h3");
  });
});

describe("a failure ends in a roll-back (exit 5) and the job runs on the source", () => {
  it("late rank: the park deadline names it, and the ranks that drained go on", async () => {
    const w = world({ deadlines: { park: 300 } });
    const [rank] = w.guest("vm2").ranks;
    if (rank !== undefined) rank.late = true;
    const report = await (await controllerOf(w)).migrate({ vm: "vm1", to: "h3" });
    expect(report.outcome).toBe("rolled-back");
    expect(report.message).toContain('the deadline "park" (0.3 s) passed in phase drain');
    expect(report.message).toContain("rank 2 on vm2 (pid 1002) is late");
    expectWell(w, "vm1", "h1");
    // Nobody had torn down, so the ranks were told so.
    expect(w.guest("vm1").wants.at(-1)).toMatchObject({ phase: "run-openib", step: 2, quietComplete: false });
    expect(w.guest("vm1").ranks.map((r) => r.report.epoch)).toEqual([1, 1]);
    expect(w.calls).not.toContain("detach vm1@h1");
    expect(w.processes.has("vm1@h3")).toBe(false);
  });

  it("a journal that cannot be opened leaves no lock behind", async () => {
    const w = world();
    const journal = join(w.cluster.state, "journal.jsonl");
    openStateFolder(w.cluster.state);
    mkdirSync(journal);
    await expect((await controllerOf(w)).migrate({ vm: "vm1", to: "h3" })).rejects.toThrow(/EISDIR/);
    expect(lockHolders(w.cluster.state)).toEqual([]);
    rmdirSync(journal);
    expect((await (await controllerOf(w)).migrate({ vm: "vm1", to: "h3" })).outcome).toBe("done");
  });

  it("without a journal to write to the cycle is cut short, and says how to go on", async () => {
    const w = world();
    const journal = join(w.cluster.state, "journal.jsonl");
    let told = false;
    w.fault = (op, _, signal) => {
      if (op !== "detach") return;
      renameSync(journal, `${journal}.away`);
      mkdirSync(journal);
      signal.addEventListener("abort", () => (told = true));
      w.fault = () => undefined;
      return undefined;
    };
    await expect((await controllerOf(w)).migrate({ vm: "vm1", to: "h3" })).rejects.toMatchObject({
      exit: "needsOperator",
      message: expect.stringMatching(/^cycle 1 was cut short in pre-copy: EISDIR/),
      hint: "then run `symvirt abort`: it finishes the cycle or rolls it back",
    });
    rmdirSync(journal);
    renameSync(`${journal}.away`, journal);
    expect(told || w.calls.includes("detach vm1@h1")).toBe(true);
    expect((await (await controllerOf(w)).abort()).outcome).toBe("rolled-back");
    expectWell(w, "vm1", "h1");
  });

  it("a rank dies while parking", async () => {
    const w = world();
    const [rank] = w.guest("vm2").ranks;
    if (rank !== undefined) rank.late = true;
    const running = (await controllerOf(w)).migrate({
      vm: "vm1",
      to: "h3",
      onProgress: (_, { phase }) => {
        if (phase === "drain" && rank?.report.state === "running")
          setImmediate(() => w.guest("vm2").set(rank, { state: "lost" }));
      },
    });
    const report = await running;
    expect(report.outcome).toBe("rolled-back");
    expect(report.message).toContain("rank 2 of job job.1 on vm2 died");
    expect(w.runsOn("vm1")).toBe("h1");
    expect(report.totalMs).toBeLessThan(1400);
  });

  it("somebody else holds the card after the ranks let go", async () => {
    const w = world({ deadlines: { park: 300 } });
    const report = await (
      await controllerOf(w)
    ).migrate({
      vm: "vm1",
      to: "h3",
      onProgress: (_, { phase }) => {
        if (phase === "drain")
          w.guest("vm1").holders = [
            { pid: 77, command: "perftest\u001b[31m", what: "/dev/infiniband/uverbs0" },
          ];
      },
    });
    expect(report.outcome).toBe("rolled-back");
    expect(report.message).toContain("still held by pid 77 (perftest?[31m) /dev/infiniband/uverbs0");
    expectWell(w, "vm1", "h1");
  });

  it.each([
    ["launch", "launch"],
    ["listen", "listen"],
    ["detach", "detach"],
    ["migrate", "migrate"],
  ] as const)("%s fails", async (_, op) => {
    const w = world();
    w.fault = (now) => {
      if (now === op) throw boom(`the ${op} failed`);
    };
    const report = await (await controllerOf(w)).migrate({ vm: "vm1", to: "h3" });
    expect(report.outcome).toBe("rolled-back");
    expect(report.message).toContain(`the ${op} failed`);
    expectWell(w, "vm1", "h1");
    expect(w.processes.has("vm1@h3")).toBe(false);
  });

  it("the resume of the destination fails: the source still has the whole VM", async () => {
    const w = world();
    w.fault = (op, where) => {
      if (op === "resume" && where === "vm1@h3") throw boom("no resume there");
    };
    const report = await (await controllerOf(w)).migrate({ vm: "vm1", to: "h3" });
    expect(report).toMatchObject({
      outcome: "rolled-back",
      message: expect.stringContaining("no resume there"),
    });
    expectWell(w, "vm1", "h1");
    const calls = w.calls.join(" ");
    expect(calls).toMatch(/end vm1@h3 .*resume vm1@h1/);
  });

  it("attach is refused at the destination: the VM comes back", async () => {
    const w = world();
    w.fault = (op, where) => {
      if (op === "attach" && where === "vm1@h3") throw boom("attach refused");
    };
    const report = await (await controllerOf(w)).migrate({ vm: "vm1", to: "h3" });
    expect(report).toMatchObject({
      outcome: "rolled-back",
      message: expect.stringContaining("attach refused"),
    });
    expectWell(w, "vm1", "h1");
    expect(w.processes.has("vm1@h3")).toBe(false);
    expect(report.phases.some((p) => p.phase === "roll-back")).toBe(true);
  });

  it("the link never comes up at the destination", async () => {
    const w = world({ deadlines: { linkUp: 200 } });
    w.deadPorts.add(w.cluster.hosts.h3?.cards.card0?.identity.mac ?? "");
    const report = await (await controllerOf(w)).migrate({ vm: "vm1", to: "h3" });
    expect(report.outcome).toBe("rolled-back");
    expect(report.message).toContain('the deadline "linkUp"');
    expect(report.message).toContain("port DOWN");
    expectWell(w, "vm1", "h1");
  });

  it("re-init fails once, and works when tried again", async () => {
    const w = world();
    const [rank] = w.guest("vm2").ranks;
    if (rank !== undefined) rank.failReinit = 1;
    const report = await (await controllerOf(w)).migrate({ vm: "vm1", to: "h3" });
    expect(report.outcome).toBe("done");
    expectWell(w, "vm1", "h3");
  });

  it("re-init fails twice at the destination: the VM goes back, and there it works", async () => {
    const w = world();
    const [rank] = w.guest("vm1").ranks;
    if (rank !== undefined) rank.failReinit = 2;
    const report = await (await controllerOf(w)).migrate({ vm: "vm1", to: "h3" });
    expect(report.outcome).toBe("rolled-back");
    expect(report.message).toContain("rank 0 on vm1: no usable port (error -19)");
    expectWell(w, "vm1", "h1");
  });

  it("the board of a job grows over its cap", async () => {
    const w = world();
    const report = await (
      await controllerOf(w)
    ).migrate({
      vm: "vm1",
      to: "h3",
      onProgress: (_, { phase }) => {
        const guest = w.guest("vm2");
        if (phase !== "drain") return;
        for (let i = 0; i < 40; i++)
          for (const rank of [2, 3])
            guest.raw(
              `${JSON.stringify({ type: "post", session: guest.session, job: "job.1", cycle: 1, step: 1, key: `big${i}`, rank, offset: 0, total: 1 << 20, data: "AAAA" })}\n`,
            );
      },
    });
    expect(report.outcome).toBe("rolled-back");
    expect(report.message).toContain("posted more than 67108864 bytes");
    expectWell(w, "vm1", "h1");
  });
});

describe("a person must act (exit 6)", () => {
  it("the card cannot be attached on the source again", async () => {
    const w = world();
    w.fault = (op, where) => {
      if (op === "migrate") throw boom("stream broken");
      if (op === "attach" && where === "vm1@h1") throw boom("root port is gone");
    };
    const controller = await controllerOf(w);
    const report = await controller.migrate({ vm: "vm1", to: "h3" });
    expect(report.outcome).toBe("needs-operator");
    expect(report.message).toMatch(
      /^vm1 is on h1 without its card.*stream broken.*root port is gone.*symvirt abort/,
    );
    // The next verb refuses, and abort finishes once the cause is gone.
    await expect(controller.migrate({ vm: "vm1", to: "h3" })).rejects.toMatchObject({ exit: "refused" });
    w.fault = () => undefined;
    const outcome = await controller.abort();
    expect(outcome.outcome).toBe("rolled-back");
    expectWell(w, "vm1", "h1");
  });

  it("an op that does not stop when told to is not waited for", async () => {
    const w = world({ deadlines: { migrate: 100 } });
    w.fault = (op) => (op === "migrate" ? new Promise<void>(() => undefined) : undefined);
    const report = await (await controllerOf(w)).migrate({ vm: "vm1", to: "h3" });
    expect(report.outcome).toBe("needs-operator");
    expect(report.message).toContain("did not stop within 0.5 s");
  });
});

describe("abort", () => {
  const phases: Phase[] = [
    "prepare",
    "drain",
    "tear-down",
    "wait",
    "detach",
    "pre-copy",
    "switch-over",
    "attach",
    "link-up",
    "re-init",
  ];
  const ops = new Set<Phase>(["prepare", "detach", "pre-copy", "switch-over", "attach"]);
  it.each(phases)("in phase %s ends on the source with its card and the ranks running", async (phase) => {
    const w = world();
    const abort = new AbortController();
    // Ops of the phase hang until they are told to stop, so that the abort falls into the phase.
    w.fault = (_, __, signal) => (abort.signal.aborted || !pending ? undefined : hang(signal));
    let pending = false;
    const report = await (
      await controllerOf(w)
    ).migrate({
      vm: "vm1",
      to: "h3",
      signal: abort.signal,
      onProgress: (_, progress) => {
        if (progress.phase !== phase || abort.signal.aborted) return;
        pending = true;
        const stop = () => abort.abort(new Error("the operator said so"));
        // An op has to have begun; what waits for guests may be over before the next turn.
        if (ops.has(phase)) setImmediate(stop);
        else stop();
      },
    });
    expect(report).toMatchObject({
      outcome: "rolled-back",
      message: expect.stringContaining("operator said so"),
    });
    expectWell(w, "vm1", "h1");
    expect(w.processes.has("vm1@h3")).toBe(false);
  });

  it("too late for the migration: the VM has moved but was not resumed, so the source goes on", async () => {
    const w = world();
    const abort = new AbortController();
    w.fault = async (op) => {
      if (op === "migrate") abort.abort(new Error("changed my mind"));
    };
    const report = await (await controllerOf(w)).migrate({ vm: "vm1", to: "h3", signal: abort.signal });
    expect(report).toMatchObject({
      outcome: "rolled-back",
      message: expect.stringContaining("changed my mind"),
    });
    expectWell(w, "vm1", "h1");
    expect(w.calls).not.toContain("resume vm1@h3");
  });

  it("by another process through the control socket", async () => {
    const w = world();
    w.fault = (op, _, signal) => (op === "migrate" ? hang(signal) : undefined);
    const controller = await controllerOf(w);
    let inPreCopy: () => void = () => undefined;
    const reached = new Promise<void>((resolve) => {
      inPreCopy = resolve;
    });
    const running = controller.migrate({
      vm: "vm1",
      to: "h3",
      onProgress: (_, { phase }) => {
        if (phase === "pre-copy") inPreCopy();
      },
    });
    await reached;
    const other = await controllerOf(w);
    const status = await other.status();
    expect(status.running).toMatchObject({ cycle: 1, vm: "vm1", to: "h3", phase: "pre-copy" });
    expect(status.jobs[0]?.ranks.map((r) => r.report.state)).toEqual([
      "parked",
      "parked",
      "parked",
      "parked",
    ]);
    await expect(other.migrate({ vm: "vm2", to: "h3" })).rejects.toMatchObject({
      exit: "refused",
      message: `cycle 1 (migrate vm1 to h3) (pid ${process.pid}) is running`,
    });
    const outcome = await other.abort();
    expect(outcome).toMatchObject({
      outcome: "rolled-back",
      message: expect.stringContaining("symvirt abort"),
    });
    expect((await running).outcome).toBe("rolled-back");
    expectWell(w, "vm1", "h1");
  });

  it("a status that is asked as a controller ends waits for its end", async () => {
    const w = world();
    const controller = await controllerOf(w);
    openStateFolder(w.cluster.state);
    const path = join(w.cluster.state, "control.sock");
    let left = 3;
    const ending = createServer((socket) => {
      socket.destroy();
      if (--left === 0) ending.close();
    });
    await new Promise<void>((resolve) => ending.listen(path, resolve));
    const lock = await acquireLock(w.cluster.state, {
      what: "migrate vm1 to h3",
      acting: true,
      waitMs: 1000,
    });
    ending.once("close", () => lock.release());
    expect((await controller.status()).vms.map((v) => v.host)).toEqual(["h1", "h2"]);
    expect(left).toBe(0);
  });

  it("with nothing to abort says so", async () => {
    const outcome = await (await controllerOf(world())).abort();
    expect(outcome.outcome).toBe("nothing");
  });
});
