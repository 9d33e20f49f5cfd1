/** Cycles that fail or are stopped: the VM stays on the source with its card, the job goes on and ends right. */
import { setTimeout as delay } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { run } from "../../../src/lab/process.js";
import { openQemuDriver } from "../../../src/vmm/qemu/driver.js";
import { type CliRun, words } from "../../../src/testbed/command.js";
import { Job, type RankSample } from "../../../src/testbed/job.js";
import { expectOn, expectRolledBack, type Strategy } from "../../../src/testbed/outcomes.js";
import { deafen, hearAgain, killAgent } from "../support/guest-facts.js";
import { type E2eLab, type RawCluster, type RawHost, sharedJob } from "../support/lab-fixture.js";
import { say, timed, until } from "../support/progress.js";

/** Pre-copy takes a minute or more with this. */
const slow = ["--bandwidth", "3M"];

interface Started {
  vm: string;
  host: string;
  to: string;
  job: Job;
  before: RankSample[];
  run: CliRun;
}

interface Fault {
  vm?: string;
  args?: readonly string[];
  /** Changes in a copy of the cluster file, given the destination. */
  cluster?: (raw: RawCluster, destination: RawHost) => void;
  /** Done before the command. */
  prepare?: (at: { vm: string; to: string }) => Promise<void>;
}

/** Starts a migration to the free host under the job. */
async function startMigration(
  lab: E2eLab,
  job: Job,
  strategy: Strategy,
  fault: Fault = {},
): Promise<Started> {
  const { vm = "vm1", args = [], cluster, prepare } = fault;
  const before = await job.expectOpenib();
  const [host, to] = [await lab.hostOf(vm), await lab.freeHost()];
  await prepare?.({ vm, to });
  const path =
    cluster === undefined
      ? lab.lab.path
      : lab.variant("fault", (raw) => {
          const destination = raw.hosts[to];
          if (destination !== undefined) cluster(raw, destination);
        });
  const run = lab.start(["migrate", vm, "--to", to, "--strategy", strategy, "--json", ...args], path);
  return { vm, host, to, job, before, run };
}

export function failureCases(lab: () => E2eLab, strategy: Strategy): void {
  describe(`failures and aborts, strategy ${strategy}`, () => {
    const shared = sharedJob(lab, "ring");
    const begin = async (fault?: Fault) => await startMigration(lab(), await shared.get(), strategy, fault);

    it("the destination's QEMU is killed in pre-copy", async () => {
      const s = await begin({ args: slow });
      await lab().inPreCopy(s.run);
      process.kill(lab().qemuPid(s.vm, s.to), "SIGKILL");
      await expectRolledBack(lab(), await s.run.ended, { ...s, cause: /./ });
    });

    it("the migration stream cannot connect", async () => {
      const uplink = (to: string, state: string) =>
        run(["ip", "-n", lab().namespace(to), "link", "set", "sv-up-m", state]);
      const s = await begin({
        prepare: async ({ vm, to }) => {
          await uplink(to, "down");
          // The source must ask for the destination's MAC, and so learn at once that it is away.
          const from = lab().namespace(await lab().hostOf(vm));
          await run(["ip", "-n", from, "neigh", "flush", "dev", "sv-m"]);
        },
      });
      const result = await s.run.ended;
      await uplink(s.to, "up");
      await expectRolledBack(lab(), result, { ...s, cause: /./ });
    });

    it("attach is refused by the destination's QEMU: the VM migrates back", async () => {
      const s = await begin({
        cluster: (_, destination) => {
          for (const card of Object.values(destination.cards)) card.options.netdev = "nonexistent";
        },
      });
      await expectRolledBack(lab(), await s.run.ended, { ...s, cause: /nonexistent/ });
    });

    it("the link never comes up at the destination: the VM migrates back", async () => {
      const s = await begin({
        vm: "vm2",
        cluster: (raw, destination) => {
          raw.deadlines = { ...raw.deadlines, linkUp: "15s" };
          for (const card of Object.values(destination.cards)) card.identity.mac = "52:54:00:99:99:99";
        },
      });
      await expectRolledBack(lab(), await s.run.ended, { ...s, cause: /linkUp.*52:54:00:99:99:99/ });
    });

    it("abort in prepare", async () => {
      const s = await begin({
        cluster: (_, destination) => {
          destination.run = ["sh", "-c", 'sleep 3; exec "$@"', "sh", ...destination.run];
        },
      });
      await lab().inPhase(s.run, "prepare");
      await lab().controller.abort();
      await expectRolledBack(lab(), await s.run.ended, { ...s, cause: /abort/ });
      // The ranks were never asked anything.
      await s.job.expectOpenib({ since: s.before, epochs: 0 });
    });

    it("symvirt abort in pre-copy", async () => {
      const s = await begin({ args: slow });
      await lab().inPreCopy(s.run);
      const abort = await lab().cli(["abort", "--json"]);
      expect(abort.code, words(abort)).toBe(0);
      await expectRolledBack(lab(), await s.run.ended, { ...s, cause: /symvirt abort/ });
    });

    it("abort in link-up", async () => {
      const s = await begin({
        prepare: async ({ vm }) => void (await lab().guest(vm, "echo 8 >/run/symvirt/hook-delay")),
      });
      await lab().inPhase(s.run, "link-up");
      await lab().guest(s.vm, "rm /run/symvirt/hook-delay");
      await lab().controller.abort();
      await expectRolledBack(lab(), await s.run.ended, { ...s, cause: /abort/ });
    });

    it("abort in re-init", async () => {
      const s = await begin({ vm: "vm2" });
      await lab().inPhase(s.run, "re-init");
      await lab().controller.abort();
      await expectRolledBack(lab(), await s.run.ended, { ...s, cause: /abort/ });
    });

    it("SIGINT to the controller", async () => {
      const s = await begin({ args: slow });
      await lab().inPreCopy(s.run);
      s.run.kill("SIGINT");
      await expectRolledBack(lab(), await s.run.ended, { ...s, cause: /./, code: 130 });
    });

    it("agents killed between and in a cycle: it completes", async () => {
      const job = await shared.get();
      const allKnown = () =>
        timed("all ranks are known to new agents", () =>
          until("every rank is reported again", 60_000, async () =>
            (await job.ranks()).length === lab().worldSize ? true : undefined,
          ),
        );
      await Promise.all(lab().vms.map((vm) => killAgent(lab(), vm)));
      await allKnown();
      const s = await startMigration(lab(), job, strategy, { args: ["--bandwidth", "40M"] });
      await lab().inPreCopy(s.run);
      // Its own VM is on the move: the other's, and the moving one's.
      await Promise.all(lab().vms.map((vm) => killAgent(lab(), vm)));
      const result = await s.run.ended;
      expect(result.code, words(result)).toBe(0);
      // A guest on the move is slow to start a command: its agent may have been killed as late as the cycle's end.
      await allKnown();
      const after = await job.expectOpenib({ since: s.before, epochs: 1, vm: s.vm });
      await expectOn(lab(), s.vm, s.to);
      await job.expectGoesOn(after);
    });

    it("the controller is killed in pre-copy: migrate refuses, abort finishes", async () => {
      const s = await begin({ args: slow });
      await lab().inPreCopy(s.run);
      s.run.kill("SIGKILL");
      await s.run.ended;
      expect((await lab().status()).interrupted).toMatchObject({ vm: s.vm, from: s.host, to: s.to });
      const again = await lab().cli(["migrate", s.vm, "--to", s.to]);
      expect(again.code, words(again)).toBe(3);
      expect(again.stderr).toContain("symvirt abort");
      const abort = await lab().cli(["abort", "--json"]);
      await expectRolledBack(lab(), abort, { ...s, cause: /./, code: 0 });
    });

    it("a second controller is refused and told who runs", async () => {
      const s = await begin({ args: slow });
      await lab().inPreCopy(s.run);
      const second = await lab().cli(["migrate", "vm2", "--to", s.to]);
      expect(second.code, words(second)).toBe(3);
      expect(second.stderr).toMatch(/migrate vm1|cycle \d+/);
      await lab().controller.abort();
      await expectRolledBack(lab(), await s.run.ended, { ...s, cause: /abort/ });
    });

    it("the guest does not let the card go; and abort in detach", async () => {
      const job = await shared.get();
      const deadline = (raw: RawCluster) => {
        raw.deadlines = { ...raw.deadlines, detach: "4s" };
      };
      const prepare = async ({ vm }: { vm: string }) => void (await lab().guest(vm, deafen));
      const first = await startMigration(lab(), job, strategy, { cluster: deadline, prepare });
      await expectRolledBack(lab(), await first.run.ended, { ...first, cause: /detach/ });

      const second = await startMigration(lab(), job, strategy);
      await lab().inPhase(second.run, "detach");
      await lab().controller.abort();
      await expectRolledBack(lab(), await second.run.ended, { ...second, cause: /abort/ });
      await shared.end();

      // QEMU cannot take its request back: the guest hears of it now, with no job on the card any more.
      await lab().guest(second.vm, hearAgain);
      await putCardBack(lab(), second.vm, second.host);
    });

    it("the shared job ends right", async () => {
      await shared.get();
      await shared.end();
    });

    it("abort in drain, waiting for a rank that computes", async () => {
      const job = await Job.start(lab(), "late", { args: ["--compute", "12"] });
      const s = await startMigration(lab(), job, strategy);
      await lab().inPhase(s.run, "drain");
      await lab().controller.abort();
      await expectRolledBack(lab(), await s.run.ended, { ...s, cause: /abort/ });
      await job.expectRightEnd();
    });

    it("a rank dies while draining: the cycle learns it at once", async () => {
      const job = await Job.start(lab(), "late", { args: ["--compute", "50"] });
      const s = await startMigration(lab(), job, strategy);
      await lab().inPhase(s.run, "drain");
      const victim = s.before.find((r) => r.rank === 1);
      const killed = performance.now();
      await lab().guest(victim?.vm ?? "", `kill -9 ${victim?.report.pid}`);
      const result = await s.run.ended;
      const seconds = (performance.now() - killed) / 1000;
      say(`the cycle ended ${seconds.toFixed(1)} s after the rank`);
      expect(result.code, words(result)).toBe(5);
      // Not by the deadline (60 s), nor when the late rank comes (50 s).
      expect(seconds).toBeLessThan(25);
      expect(JSON.parse(result.stdout)).toMatchObject({ outcome: "rolled-back" });
      expect(result.stderr).toMatch(/rank \d .*(died|left)/);
      expect(await job.exitCode()).not.toBe(0);
      await expectOn(lab(), s.vm, s.host);
    });
  });
}

/** Waits until the guest has let go of a card after all, and plugs it in again. */
async function putCardBack(lab: E2eLab, vm: string, host: string): Promise<void> {
  const signal = AbortSignal.timeout(120_000);
  const { cluster } = lab.lab;
  const driver = openQemuDriver(cluster, vm, host);
  try {
    await timed(`${vm} lets go of its card after all`, () => driver.detach("hca0", signal));
    const cards = Object.values(cluster.hosts[host]?.cards ?? {});
    const number = Number(vm.slice(2)) - 1;
    const card = cards[number] ?? cards[0];
    if (card === undefined) throw new Error(`${host} has no card`);
    await driver.attach("hca0", cluster.vms[vm]?.cards.hca0?.bus ?? "", card, signal);
  } finally {
    await driver.close();
  }
  for (;;) {
    signal.throwIfAborted();
    const found = (await lab.status()).vms.find((v) => v.vm === vm);
    if (found?.devices.some((d) => d.port === "ACTIVE" && d.gid !== "")) return;
    await delay(500);
  }
}
