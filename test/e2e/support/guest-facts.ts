/** What tests read and change inside the guests of a lab. */
import type { RankSample } from "./job.js";
import type { E2eLab } from "./lab-fixture.js";
import { until } from "./progress.js";

/** What a rank's process holds, by /proc. */
export interface RankHoldings {
  rank: number;
  descriptors: number;
  threads: number;
  mappings: number;
  /** Descriptors and mappings of /dev/infiniband. */
  verbs: number;
  rssKiB: number;
}

/** Reads /proc of all ranks, in their guests. */
export async function holdings(lab: E2eLab, ranks: readonly RankSample[]): Promise<RankHoldings[]> {
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
      return (await lab.guest(vm, script)).trim().split("\n");
    }),
  );
  return found
    .flat()
    .map((line) => {
      const [rank = -1, descriptors = -1, threads = -1, mappings = -1, verbs = -1, rssKiB = -1] = line
        .split(" ")
        .map(Number);
      return { rank, descriptors, threads, mappings, verbs, rssKiB };
    })
    .sort((a, b) => a.rank - b.rank);
}

const agentPids = `for p in /proc/[0-9]*; do
  [ "$(readlink $p/exe)" = /opt/symvirt/bin/node ] || continue
  case "$(tr '\\0' ' ' <$p/cmdline)" in *"symvirt agent"*) echo \${p#/proc/} ;; esac
done`;

/** Kills the agent of a guest; the guest's init starts it again. */
export async function killAgent(lab: E2eLab, vm: string): Promise<void> {
  const pid = (await lab.guest(vm, agentPids)).trim();
  if (!/^\d+$/.test(pid)) throw new Error(`agents of ${vm}: "${pid}"`);
  await lab.guest(vm, `kill -9 ${pid}`);
}

/** Keeps a guest without an agent from now on. */
export async function withholdAgent(lab: E2eLab, vm: string): Promise<void> {
  await lab.guest(
    vm,
    `cd /usr/lib/symvirt-lab && touch /run/symvirt/e2e-no-agent && mv agent agent.real && cat >agent <<'END' && chmod 755 agent
#!/bin/sh
while [ -e /run/symvirt/e2e-no-agent ]; do sleep 0.5; done
END`,
  );
  await killAgent(lab, vm);
}

export const agentBack = `cd /usr/lib/symvirt-lab; if [ -e agent.real ]; then mv agent.real agent; fi; rm -f /run/symvirt/e2e-no-agent`;

export async function restoreAgent(lab: E2eLab, vm: string): Promise<void> {
  await lab.guest(vm, agentBack);
  await until(`the agent of ${vm}`, 60_000, async () => {
    const found = (await lab.status()).vms.find((v) => v.vm === vm);
    return found?.agent.answers === true ? true : undefined;
  });
}

/** General purpose event 1 is how QEMU tells a q35 guest of a card's coming and going. */
export const deafen = "echo mask >/sys/firmware/acpi/interrupts/gpe01";
export const hearAgain = "echo unmask >/sys/firmware/acpi/interrupts/gpe01";
