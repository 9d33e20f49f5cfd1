/** Hosts without a card, jobs that begin without one, and cards that look different from the last. */
import { describe, expect, it } from "vitest";
import { words } from "../../../src/testbed/command.js";
import { Job, type RankSample } from "../../../src/testbed/job.js";
import { expectAt, expectOn, reportOf } from "../../../src/testbed/outcomes.js";
import { verbsName } from "../support/guest-facts.js";
import type { E2eLab, RawCluster } from "../support/lab-fixture.js";

type Change = (raw: RawCluster) => void;

/** A host offers no card any more. */
const cardless =
  (host: string): Change =>
  ({ hosts, vms }) => {
    const entry = hosts[host];
    if (entry !== undefined) entry.cards = {};
    for (const vm of Object.values(vms))
      if (vm.host === host) for (const slot of Object.values(vm.cards)) delete slot.card;
  };

/** Cards are plugged into the guests' second root port. */
const otherPort: Change = ({ vms }) => {
  for (const { cards } of Object.values(vms)) for (const slot of Object.values(cards)) slot.bus = "rp1";
};

const same: Change = () => undefined;

/** Migrates a VM under the job to the free host, which offers no card now: the job stays on tcp. */
async function migrateToNoCard(
  lab: E2eLab,
  job: Job,
  vm: string,
  also: Change = same,
): Promise<{ host: string; cluster: string }> {
  const host = await lab.freeHost();
  const cluster = lab.variant("cardless", (raw) => {
    also(raw);
    cardless(host)(raw);
  });
  const args = ["migrate", vm, "--to", host, "--strategy", "live", "--json"];
  const result = await lab.cli(args, cluster);
  expect(result.code, words(result)).toBe(0);
  expect(reportOf(result)).toMatchObject({ outcome: "done", strategy: "live", vm, to: host });
  expect(reportOf(result).message).toMatch(/over tcp.*symvirt recover/);
  await expectOverTcp(lab, job, vm, host);
  return { host, cluster };
}

/** The VM is there without a card, its ranks run over tcp, the job goes on. */
async function expectOverTcp(lab: E2eLab, job: Job, vm: string, host: string): Promise<void> {
  const found = await expectAt(lab, vm, host);
  expect(found).toMatchObject({ cards: [], devices: [] });
  const ranks = await job.expectRunning();
  for (const { report } of ranks.filter((r) => r.vm === vm))
    expect(report).toMatchObject({ route: "tcp", openDescriptors: 0 });
  await job.expectGoesOn(ranks, "tcp");
}

export function cardlessCases(lab: () => E2eLab): void {
  describe("a host without a card", () => {
    it("takes the VM: the job stays on tcp, status says so, recover brings openib back", async () => {
      const job = await Job.start(lab(), "ring");
      const before = await job.expectOpenib();
      const { host, cluster } = await migrateToNoCard(lab(), job, "vm2");

      const status = await lab().cli(["status"], cluster);
      expect(status.code, words(status)).toBe(0);
      expect(status.stdout).toMatch(/^vm2 .*running +- /m);
      expect(status.stdout).toMatch(/runs? over tcp.*`symvirt recover vm2` brings openib back/);
      const early = await lab().cli(["recover", "vm2"], cluster);
      expect(early.code, words(early)).toBe(3);
      expect(early.stderr).toContain(`${host} has no free card`);
      await expectOverTcp(lab(), job, "vm2", host);

      // From here on the host offers its card.
      const back = await lab().cli(["recover", "vm2", "--json"]);
      expect(back.code, words(back)).toBe(0);
      expect(reportOf(back)).toMatchObject({ verb: "recover", outcome: "done" });
      const ranks = await job.expectOpenib({ since: before, epochs: 1, vm: "vm2" });
      await expectOn(lab(), "vm2", host);
      await job.expectGoesOn(ranks);
      expect((await lab().cli(["status"])).stdout).not.toMatch(/over tcp/);
      await job.expectRightEnd();
    });

    it("a further migrate to a host with a card brings openib back too; jobs that begin in between get it as well", async () => {
      const first = await Job.start(lab(), "sizes");
      await migrateToNoCard(lab(), first, "vm1");
      await first.expectRightEnd();

      // vm1, where mpirun is called, has no card now, vm2 has one: a job over both begins over tcp.
      const job = await Job.start(lab(), "ring", { route: "tcp" });
      const before = await job.expectRunning();
      expect(before.map((r) => r.report.epoch)).toEqual(before.map(() => 1));
      expect(before.every((r) => r.report.openDescriptors === 0 && r.report.openib.sentBytes === 0)).toBe(
        true,
      );
      const status = await lab().cli(["status"]);
      expect(status.stdout).toMatch(/runs? over tcp.*`symvirt recover vm1` brings openib back/);

      const to = await lab().freeHost();
      const result = await lab().cli(["migrate", "vm1", "--to", to, "--strategy", "live", "--json"]);
      expect(result.code, words(result)).toBe(0);
      expect(reportOf(result).phases.map((p) => p.phase)).not.toContain("drain");
      const ranks = await job.expectOpenib({ since: before, epochs: 1 });
      await expectOn(lab(), "vm1", to);
      await job.expectGoesOn(ranks);

      // And from then on it is a job like any other.
      const there = await lab().freeHost();
      const again = await lab().cli(["migrate", "vm1", "--to", there, "--strategy", "live", "--json"]);
      expect(again.code, words(again)).toBe(0);
      await job.expectGoesOn(await job.expectOpenib({ since: ranks, epochs: 1, vm: "vm1" }));
      await job.expectRightEnd();
    });
  });
}

/** A card that is another one in every way. */
export function otherCard(lab: () => E2eLab): void {
  describe("a card that looks different", () => {
    it("another MAC, verbs name and PCI address, and back again", async () => {
      const job = await Job.start(lab(), "collectives");
      const card = async () => (await lab().status()).vms.find((v) => v.vm === "vm1")?.devices[0];
      const was = await card();
      const well = async (before: RankSample[], host: string) => {
        const ranks = await job.expectOpenib({ since: before, epochs: 1, vm: "vm1" });
        await expectOn(lab(), "vm1", host);
        await job.expectGoesOn(ranks);
        return ranks;
      };
      const recover = async (host: string, name: string, cluster?: string) => {
        const before = await job.expectRunning();
        await lab().guest("vm1", verbsName(name));
        const result = await lab().cli(["recover", "vm1"], cluster);
        expect(result.code, words(result)).toBe(0);
        return await well(before, host);
      };

      const first = await migrateToNoCard(lab(), job, "vm1");
      const there = lab().variant("other-port", otherPort);
      const ranks = await recover(first.host, "fab7", there);
      const second = await card();
      expect(second?.verbs).toBe("fab7");
      expect(second?.pci).not.toBe(was?.pci);
      expect(second?.mac).not.toBe(was?.mac);

      const to = await lab().freeHost();
      const moved = await lab().cli(["migrate", "vm1", "--to", to, "--strategy", "live"], there);
      expect(moved.code, words(moved)).toBe(0);
      await well(ranks, to);
      expect(await card()).toMatchObject({ verbs: "fab7", pci: second?.pci });
      expect((await card())?.mac).not.toBe(second?.mac);

      const last = await migrateToNoCard(lab(), job, "vm1", otherPort);
      await recover(last.host, "rxe0");
      expect(await card()).toMatchObject({ verbs: "rxe0", pci: was?.pci });
      await job.expectRightEnd();
    });
  });
}
