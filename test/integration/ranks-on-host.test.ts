/**
 * Real MPI ranks on this host with libsymvirt.so, whose proxied network is BTL/tcp: no card, no VM. A real
 * agent, the controller's own link and board. Answers of the self-verifying workloads must be right across
 * any number of cycles, and processes that are none of the library's business must not notice it.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { execa } from "execa";
import { afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { parseJobLog } from "../../src/demo/job-log.js";
import { holdings, type Job, preload, RankHost, workload } from "../support/rank-host.js";

let host: RankHost;

beforeAll(async () => {
  await execa("bash", ["scripts/build.sh"], { cwd: new URL("../..", import.meta.url).pathname });
});
beforeEach(async () => {
  host = await new RankHost().start();
});
afterEach(async () => {
  await host.stop();
});

const pidsOf = (name: string) => host.job(name)?.ranks.map((r) => r.pid) ?? [];

/** The job ends by itself with the right answer. */
async function expectRight(job: Job): Promise<void> {
  expect(await job.finish(), job.stderr).toBe(0);
  expect(parseJobLog(job.stdout).result, job.stderr).toMatchObject({ ok: true });
}

describe("cycles in a running job", { timeout: 30_000 }, () => {
  // Stock osc/rdma makes no window over btl tcp,self: MPI_ERR_WIN, with or without the preload.
  const osc = ["--mca", "pml", "ob1", "--mca", "osc", "pt2pt"];
  it.each([
    ...["ring", "sizes", "collectives", "onesided", "stencil"].flatMap((name) => [
      { name, ranks: 2 },
      { name, ranks: 4 },
    ]),
  ])("$name with $ranks ranks is right across 4 cycles", async ({ name, ranks }) => {
    const job = host.run({ program: workload(name), ranks, mca: osc });
    const id = await host.joined(ranks);
    for (let i = 1; i <= 4; i++) {
      await host.turn([id]);
      expect(host.job(id)?.ranks.map((r) => [r.route, r.epoch, r.tcpOnly])).toEqual(
        Array(ranks).fill(["tcp", i + 1, true]),
      );
    }
    await expectRight(job);
  });

  it("50 cycles leave no descriptor, thread or mapping behind", async () => {
    const job = host.run({ program: workload("ring"), ranks: 2 });
    const id = await host.joined(2);
    const pids = pidsOf(id);
    for (let i = 0; i < 3; i++) await host.turn([id]);
    const before = await Promise.all(pids.map(holdings));
    for (let i = 3; i < 50; i++) await host.turn([id]);
    const after = await Promise.all(pids.map(holdings));
    for (const [i, a] of after.entries()) {
      const b = before[i];
      if (b === undefined) throw new Error("a rank is missing");
      expect([a.descriptors, a.threads]).toEqual([b.descriptors, b.threads]);
      // malloc may map an arena or two of its own
      expect(a.mappings - b.mappings).toBeLessThan(10);
      expect((a.resident - b.resident) / 47).toBeLessThan(1 << 20);
    }
    expect(host.job(id)?.ranks.map((r) => r.epoch)).toEqual([51, 51]);
    await expectRight(job);
  });
});

describe("ranks that are held while their VM is copied", { timeout: 30_000 }, () => {
  /** Processor time a process has used, in clock ticks (proc_pid_stat(5), fields 14 and 15). */
  const ticks = (pid: number) => {
    const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ") ?? [];
    return Number(fields[11]) + Number(fields[12]);
  };

  it.each(["dirty", "stencil", "sizes"])("%s stands still, goes on, and is right", async (name) => {
    const job = host.run({ program: workload(name), ranks: 3 });
    const id = await host.joined(3);
    const pids = pidsOf(id);
    for (let i = 0; i < 3; i++) {
      host.begin([id]);
      host.order("hold");
      await host.reached("held");
      const before = pids.map(ticks);
      await delay(1000);
      // Nothing is polled: of a hundred ticks a second hardly one is used, by the thread of the agent's connection.
      for (const [r, pid] of pids.entries()) expect(ticks(pid) - (before[r] ?? 0)).toBeLessThan(10);
      host.order("run-tcp");
      await host.reached("running");
    }
    expect(Math.min(...(host.job(id)?.ranks.map((r) => r.timings.held) ?? []))).toBeGreaterThan(1_000_000);
    await host.turn([id]); // parked and back, as ever
    await expectRight(job);
  });

  it("holds across an agent that is killed, and can be parked out of it", async () => {
    const job = host.run({ program: workload("dirty"), ranks: 2 });
    const id = await host.joined(2);
    host.begin([id]);
    host.order("hold");
    await host.reached("held");
    await host.killAgent();
    host.startAgent();
    await host.reached("held"); // the ranks tell the new agent
    host.order("park");
    await host.reached("parked");
    host.order("run-openib");
    await host.reached("running");
    await expectRight(job);
  });
});

describe("what goes wrong", { timeout: 30_000 }, () => {
  it("an agent killed between and inside cycles is caught up with", async () => {
    const job = host.run({ program: workload("stencil"), ranks: 2 });
    const id = await host.joined(2);
    await host.turn([id]);
    await host.killAgent();
    host.startAgent();
    await host.joined(2);
    await host.turn([id]);

    host.begin([id]);
    host.order("park");
    await host.reached("parked");
    await host.killAgent();
    host.startAgent();
    await host.reached("parked"); // the ranks tell the new agent
    host.order("run-openib");
    await host.reached("running");

    host.begin([id]);
    await host.killAgent();
    host.order("park"); // nobody is there to hear it: the level tells it
    host.startAgent();
    await host.reached("parked");
    host.order("run-openib");
    await host.killAgent();
    host.startAgent();
    await host.reached("running");
    await expectRight(job);
  });

  it("a rank that computes delays the drain; abort lets the others go on at once", async () => {
    const compute = ["--compute", "4", "--stop-file"];
    const stop = join(host.folder, "stop-0");
    const job = host.run({ program: workload("late"), ranks: 3, args: [...compute, stop] });
    const id = await host.joined(3);
    host.begin([id]);
    // The others iterate, so the late rank has come through MPI_Init and computes.
    await host.until("the first iterations", () => job.stdout.includes("iter "), 10_000);
    host.order("park");
    const others = (r: { rank: number }) => r.rank < 2;
    await host.reached("draining", others);
    expect(host.job(id)?.ranks[2]).toMatchObject({ state: "running", cycle: 0 });
    const asked = performance.now();
    host.order("run-openib");
    await host.reached("running", others, 2_000);
    expect(performance.now() - asked).toBeLessThan(1_000);
    expect(host.job(id)?.ranks[2]).toMatchObject({ state: "running", cycle: 0 });
    await host.reached("running"); // the late rank takes the last word only
    await host.turn([id]); // and a cycle with patience
    expect(Math.max(...(host.job(id)?.ranks.map((r) => r.timings.late) ?? []))).toBeGreaterThan(0);
    await expectRight(job);
  });

  it("a killed rank is reported lost at once, also while the job is parked", async () => {
    const job = host.run({ program: workload("ring"), ranks: 2 });
    const id = await host.joined(2);
    host.begin([id]);
    host.order("park");
    await host.reached("parked");
    const pid = pidsOf(id)[0] ?? Number.NaN;
    const killed = performance.now();
    process.kill(pid, "SIGKILL");
    await host.until("rank 0 to be lost", () => host.job(id)?.ranks[0]?.state === "lost", 2_000);
    expect(performance.now() - killed).toBeLessThan(1_000);
    expect(await job.ended).not.toBe(0);
  });

  it("a job that ends while a cycle is wanted ends right", async () => {
    const job = host.run({ program: workload("ring"), ranks: 2, args: ["--seconds", "1"] });
    const id = await host.joined(2);
    const ranks = () => host.job(id)?.ranks ?? [];
    const gone = () => ranks().length < 2 || ranks().some((r) => r.state === "left" || r.state === "lost");
    // Park and let go, over and over, until the job has ended under it.
    while (!gone()) {
      host.begin([id]);
      host.order("park");
      const parked = () => ranks().every((r) => r.state === "parked" && r.cycle === host.cycle);
      await host.until("parked or gone", () => gone() || parked());
      host.order("run-openib");
      const runs = () =>
        ranks().every((r) => r.state === "running" && r.step === host.step && r.cycle === host.cycle);
      await host.until("running or gone", () => gone() || runs());
    }
    expect(await job.ended, job.stderr).toBe(0);
    expect(parseJobLog(job.stdout).result).toMatchObject({ ok: true });
    expect(host.cycle).toBeGreaterThan(1);
    await host.until("the ranks to have left", () =>
      (host.job(id)?.ranks ?? []).every((r) => r.state === "left"),
    );
  });

  it("two jobs at the same time keep apart", async () => {
    const one = host.run({ program: workload("ring"), ranks: 2 });
    const first = await host.joined(2);
    const two = host.run({ program: workload("stencil"), ranks: 2 });
    const second = await host.joined(2, "running", [first]);
    for (let i = 0; i < 3; i++) await host.turn([first, second]);
    await host.turn([second]);
    expect(host.job(first)?.ranks.map((r) => r.epoch)).toEqual([4, 4]);
    expect(host.job(second)?.ranks.map((r) => r.epoch)).toEqual([5, 5]);
    await expectRight(one);
    await host.turn([second]);
    await expectRight(two);
  });
});

describe("inertness", { timeout: 30_000 }, () => {
  const env = () => ({ LD_PRELOAD: preload, SYMVIRT_SOCKET: host.socket, SYMVIRT_LOG: "debug" });
  const few = ["--iterations", "20"];

  it.each([
    ["/bin/true", []],
    ["/bin/sh", ["-c", "echo from a script | cat"]],
    ["mpirun", ["--version"]],
  ])("%s does not notice the preload", async (program, args) => {
    const plain = await execa(program, args);
    const { stdout, stderr, exitCode } = await execa(program, args, { env: env() });
    expect([stdout, stderr, exitCode]).toEqual([plain.stdout, plain.stderr, 0]);
  });

  it.each([
    { why: "SYMVIRT_DISABLE is set", env: { SYMVIRT_DISABLE: "1" } },
    { why: "SYMVIRT_PROXY is none", env: { SYMVIRT_PROXY: "none" } },
    { why: "openib is not among this job's BTLs", env: { SYMVIRT_PROXY: "" }, btl: "self,vader,tcp" },
    { why: "the application asked for MPI_THREAD_MULTIPLE", program: "multiple" },
    { why: "tcp is not among this job's BTLs", btl: "self,vader" },
  ])("the agent is told: $why", async ({ why, env, btl, program }) => {
    const stop = join(host.folder, "stop-0");
    const more = { ...(env && { env }), ...(btl !== undefined && { btl }) };
    const args = ["--stop-file", stop];
    const job = host.run({ program: workload(program ?? "ring"), ranks: 2, args, everywhere: true, ...more });
    const id = await host.joined(2, "inert");
    expect(host.job(id)?.ranks.map((r) => r.detail)).toEqual([why, why]);
    await expectRight(job);
    for (const rank of [0, 1])
      expect(
        job.stderr.match(new RegExp(`^.symvirt rank ${rank} .*inert: ${why}$`, "gm")),
        job.stderr,
      ).toHaveLength(1);
  });

  it("without an agent the ranks say so once and run", async () => {
    const nowhere = { SYMVIRT_SOCKET: join(host.folder, "nowhere.sock") };
    const job = host.run({ program: workload("ring"), ranks: 2, args: few, env: nowhere });
    await expectRight(job);
    expect(job.stderr.match(/inert: there is no symvirt agent in this machine/g)).toHaveLength(2);
    expect(host.link.state?.jobs ?? []).toHaveLength(0);
  });

  it("says nothing by default", async () => {
    const job = host.run({ program: workload("ring"), ranks: 2, args: few, env: { SYMVIRT_LOG: "error" } });
    await expectRight(job);
    expect(job.stderr).not.toContain("symvirt");
  });

  it.for(["cm", "ucx"])("pml %s is left alone", async (pml, { skip }) => {
    const args = [
      "--allow-run-as-root",
      "--oversubscribe",
      "--mca",
      "pml",
      pml,
      "-np",
      "2",
      workload("ring"),
      ...few,
    ];
    const stock = await execa("mpirun", args, { reject: false, timeout: 15_000 });
    skip(stock.exitCode !== 0, `pml ${pml} does not work on this machine (exit ${stock.exitCode})`);
    const job = host.run({ program: workload("ring"), ranks: 2, args: few, mca: ["--mca", "pml", pml] });
    await expectRight(job);
  });

  it("a script between mpirun and the program is no obstacle", async () => {
    const script = join(host.folder, "wrapper");
    writeFileSync(script, `#!/bin/sh\ntrue\nexec ${workload("ring")} "$@"\n`, { mode: 0o755 });
    const job = host.run({ program: script, ranks: 2, everywhere: true });
    await host.turn([await host.joined(2)]);
    await expectRight(job);
  });
});
