/** What the processes of a job's ranks hold, by /proc of their guests. */
import type { RankSample } from "./job.js";
import type { Testbed } from "./testbed.js";

export interface RankHoldings {
  rank: number;
  /** How often it has opened a card: the epoch it reports. */
  epoch: number;
  descriptors: number;
  threads: number;
  mappings: number;
  /** Descriptors and mappings of /dev/infiniband. */
  verbs: number;
  rssKiB: number;
}

/** Reads /proc of all ranks; in the order of their ranks. */
export async function holdings(bed: Testbed, ranks: readonly RankSample[]): Promise<RankHoldings[]> {
  const vms = [...new Set(ranks.map((r) => r.vm))];
  const found = await Promise.all(
    vms.map(async (vm) => {
      const own = ranks.filter((r) => r.vm === vm);
      const script = own
        .map(
          ({ rank, report: { pid } }) =>
            `p=/proc/${pid}; echo ${rank} $(ls $p/fd | wc -l) $(ls $p/task | wc -l) $(wc -l <$p/maps) ` +
            `$(( $(ls -l $p/fd | grep -c /dev/infiniband) + $(grep -c /dev/infiniband $p/maps) )) ` +
            `$(sed -n 's/^VmRSS:[^0-9]*\\([0-9]*\\).*/\\1/p' $p/status)`,
        )
        .join("\n");
      return (await bed.guest(vm, script)).trim().split("\n");
    }),
  );
  return found
    .flat()
    .map((line) => {
      const [rank = -1, descriptors = -1, threads = -1, mappings = -1, verbs = -1, rssKiB = -1] = line
        .split(" ")
        .map(Number);
      const epoch = ranks.find((r) => r.rank === rank)?.report.epoch ?? 0;
      return { rank, epoch, descriptors, threads, mappings, verbs, rssKiB };
    })
    .sort((a, b) => a.rank - b.rank);
}

/** What must be the same after every cycle. Heap mappings come and go; those of the card are among `verbs`. */
export function countsOf({ rank, descriptors, threads, verbs }: RankHoldings) {
  return { rank, descriptors, threads, verbs };
}

/** What ranks hold now that they did not hold then, in words; empty when nothing. */
export function leaked(then: readonly RankHoldings[], now: readonly RankHoldings[]): string[] {
  const words: string[] = [];
  for (const held of now) {
    const before = then.find((h) => h.rank === held.rank);
    if (before === undefined) continue;
    for (const what of ["descriptors", "threads", "verbs"] as const)
      if (held[what] > before[what])
        words.push(`rank ${held.rank} holds ${held[what]} ${what}, not ${before[what]}`);
  }
  return words;
}
