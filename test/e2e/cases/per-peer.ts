/** Only the routes to the moving VM change: the VMs that stay keep openib among themselves. */
import { expect, it } from "vitest";
import type { StatusReport } from "../../../src/index.js";
import { words } from "../../../src/testbed/command.js";
import { Job, type RankSample } from "../../../src/testbed/job.js";
import { expectOn, migrateUnderJob, reportOf } from "../../../src/testbed/outcomes.js";
import type { E2eLab } from "../support/lab-fixture.js";
import { say, timed, until } from "../support/progress.js";

/** Pre-copy takes long enough for several looks. */
const slow = ["--bandwidth", "40M"];
/** Phases in which the ranks of the moving VM have left the card for certain. */
const awayPhases = new Set(["wait", "detach", "pre-copy", "switch-over", "attach", "link-up"]);

/** What one rank of a VM that stays has sent to another such rank, as it says itself. */
interface Pair {
  from: number;
  to: number;
  route: string;
  openibBytes: number;
  tcpBytes: number;
  peerEpoch: number;
}

type Picture = { pairs: Pair[]; toMoving: string[]; epochs: number[] };

/** The staying ranks' words on each other and on the moving VM; undefined if one of them did not tell in time. */
function pictureOf(ranks: readonly RankSample[], moving: string): Picture | undefined {
  const staying = ranks.filter((r) => r.vm !== moving);
  const stays = (rank: number) => staying.some((r) => r.rank === rank);
  if (staying.some((r) => r.peers === null || r.peers === undefined)) return undefined;
  const all = staying.flatMap((r) => (r.peers ?? []).map((peer) => ({ from: r, peer })));
  return {
    pairs: all
      .filter(({ peer }) => stays(peer.rank))
      .map(({ from, peer }) => ({
        ...{ from: from.rank, to: peer.rank, route: peer.route, peerEpoch: peer.epoch },
        ...{ openibBytes: peer.openib.bytes, tcpBytes: peer.tcp.bytes },
      })),
    toMoving: all.filter(({ peer }) => !stays(peer.rank)).map(({ peer }) => peer.route),
    epochs: staying.map((r) => r.report.epoch),
  };
}

async function lookAtPeers(lab: E2eLab): Promise<{ status: StatusReport; ranks: RankSample[] }> {
  const status = await lab.controller.status(undefined, { peers: true });
  return { status, ranks: status.jobs.flatMap((j) => j.ranks) };
}

/** A picture at rest; asks until every staying rank has told one. */
async function picture(lab: E2eLab, moving: string): Promise<Picture> {
  return await until("pictures of peers", 60_000, async () =>
    pictureOf((await lookAtPeers(lab)).ranks, moving),
  );
}

/** Every pair of staying ranks has sent over openib since `earlier`, nothing over tcp, in the same epochs. */
function expectOpenibOnly(earlier: Picture, later: Picture): void {
  expect(later.pairs.length).toBe(earlier.pairs.length);
  expect(later.pairs.length).toBeGreaterThan(0);
  for (const [i, pair] of later.pairs.entries()) {
    const before = earlier.pairs[i];
    expect(pair).toMatchObject({ from: before?.from, to: before?.to, route: "openib", tcpBytes: 0 });
    expect(pair.peerEpoch).toBe(before?.peerEpoch);
    expect(pair.openibBytes, `bytes of rank ${pair.from} to rank ${pair.to}`).toBeGreaterThan(
      before?.openibBytes ?? 0,
    );
  }
  expect(later.epochs).toEqual(earlier.epochs);
}

export function perPeerCases(lab: () => E2eLab): void {
  it("the two VMs that stay keep openib between themselves", async () => {
    await timed("routes of each pair", async () => {
      // Every rank sends to every other in each of its iterations.
      const job = await Job.start(lab(), "collectives");
      const [moving = ""] = lab().vms;
      const to = await lab().freeHost();
      const ranks = await job.expectOpenib();
      const before = await picture(lab(), moving);
      const during: Picture[] = [];
      const run = lab().start(["migrate", moving, "--to", to, "--strategy", "live", ...slow, "--json"]);
      while (run.result() === undefined) {
        const { status, ranks: now } = await lookAtPeers(lab());
        const phase = status.running !== null && "phase" in status.running ? status.running.phase : "";
        const found = pictureOf(now, moving);
        if (awayPhases.has(phase) && found !== undefined) during.push(found);
      }
      const result = await run.ended;
      expect(result.code, `${words(result)}\n${job.output()}`).toBe(0);
      const report = reportOf(result);
      expect(report).toMatchObject({ outcome: "done", strategy: "live", vm: moving, to });
      for (const { vm, moved, before: was, after } of report.ranks) {
        expect(moved).toBe(vm === moving);
        if (vm === moving) expect(after.epoch).toBeGreaterThan(was.epoch);
        else expect(after.epoch).toBe(was.epoch);
      }
      const [first, last] = [during[0], during.at(-1)];
      if (first === undefined || last === undefined) throw new Error("no picture while the VM was away");
      expect(during.length).toBeGreaterThanOrEqual(2);
      expectOpenibOnly(before, first);
      expectOpenibOnly(first, last);
      for (const { toMoving } of during) expect(new Set(toMoving)).toEqual(new Set(["tcp"]));
      const after = await picture(lab(), moving);
      expectOpenibOnly(last, after);
      expect(new Set(after.toMoving)).toEqual(new Set(["openib"]));
      await expectOn(lab(), moving, to);
      await job.expectGoesOn(await job.expectOpenib({ since: ranks, epochs: 1, vm: moving }));
      expectOpenibOnly(after, await picture(lab(), moving));
      const sum = (p: Picture) => p.pairs.reduce((bytes, pair) => bytes + pair.openibBytes, 0);
      say(`${during.length} pictures meanwhile; ${sum(last) - sum(first)} bytes over openib between them`);
      await job.expectRightEnd();
    });
  });

  it("a VM on a host without a card: the others keep openib and stay where they are, recover brings it back", async () => {
    await timed("a mixed job", async () => {
      const job = await Job.start(lab(), "collectives");
      const [away = "", other = ""] = lab().vms;
      const [from, bare] = [await lab().hostOf(away), await lab().freeHost()];
      await job.expectOpenib();
      const variant = lab().variant("bare", (raw) => {
        const host = raw.hosts[bare];
        if (host !== undefined) host.cards = {};
        // Whoever lived there at first: the file may not name a card that is not offered.
        for (const vm of Object.values(raw.vms))
          if (vm.host === bare) for (const place of Object.values(vm.cards)) delete place.card;
      });
      const left = await lab().cli(["migrate", away, "--to", bare, "--strategy", "live", "--json"], variant);
      expect(left.code, `${words(left)}\n${job.output()}`).toBe(0);
      const before = await picture(lab(), away);
      const told = await lab().cli(["status"]);
      expect(told.stdout).toContain(`on ${away} runs over tcp with every peer`);
      expect(told.stdout).toContain(`\`symvirt recover ${away}\``);
      await until("bytes between the others", 60_000, async () => {
        const now = await picture(lab(), away);
        return now.pairs.every((p, i) => p.openibBytes > (before.pairs[i]?.openibBytes ?? 0))
          ? true
          : undefined;
      });
      expectOpenibOnly(before, await picture(lab(), away));

      // Some routes can change only where all others lead over the card.
      const moved = await lab().cli(["migrate", other, "--to", from, "--strategy", "live", "--json"]);
      expect(moved.code, `${words(moved)}\n${job.output()}`).toBe(3);
      expect(moved.stderr).toContain(`symvirt recover ${away}`);
      const now = await job.ranks();
      expect(now.map((r) => r.report.route)).toEqual(now.map((r) => (r.vm === away ? "tcp" : "openib")));

      const back = await lab().cli(["recover", away, "--json"]);
      expect(back.code, `${words(back)}\n${job.output()}`).toBe(0);
      await job.expectGoesOn(await job.expectOpenib({ since: now, epochs: 1, vm: away }));
      await expectOn(lab(), away, bare);
      // And on as usual.
      await migrateUnderJob(lab(), job, { vm: other, strategy: "live" });
      await job.expectRightEnd();
    });
  });
}
