/** What tests change inside the guests of a lab. */
import type { Testbed } from "../../../src/testbed/testbed.js";
import { until } from "./progress.js";

const agentPids = `for p in /proc/[0-9]*; do
  [ "$(readlink $p/exe)" = /opt/symvirt/bin/node ] || continue
  case "$(tr '\\0' ' ' <$p/cmdline)" in *"symvirt agent"*) echo \${p#/proc/} ;; esac
done`;

/** Kills the agent of a guest; the guest's init starts it again. */
export async function killAgent(lab: Testbed, vm: string): Promise<void> {
  const pid = (await lab.guest(vm, agentPids)).trim();
  if (!/^\d+$/.test(pid)) throw new Error(`agents of ${vm}: "${pid}"`);
  await lab.guest(vm, `kill -9 ${pid}`);
}

/** Keeps a guest without an agent from now on. */
export async function withholdAgent(lab: Testbed, vm: string): Promise<void> {
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

export async function restoreAgent(lab: Testbed, vm: string): Promise<void> {
  await lab.guest(vm, agentBack);
  await until(`the agent of ${vm}`, 60_000, async () => {
    const found = (await lab.status()).vms.find((v) => v.vm === vm);
    return found?.agent.answers === true ? true : undefined;
  });
}

/** General purpose event 1 is how QEMU tells a q35 guest of a card's coming and going. */
export const deafen = "echo mask >/sys/firmware/acpi/interrupts/gpe01";
export const hearAgain = "echo unmask >/sys/firmware/acpi/interrupts/gpe01";

/** From the next card on the lab's hook calls its soft-RoCE device that. */
export const verbsName = (name: string): string =>
  `sed -i 's/\\(infiniband\\/\\|link add \\)[a-z0-9]\\{1,\\}/\\1${name}/g' /etc/symvirt/hooks.d/post-attach`;

/** Puts right whatever a failed test may have left in a guest. */
export const mendScript = `
rm -f /run/symvirt/hook-delay /run/symvirt/hook-fail
${hearAgain}
${agentBack}
${verbsName("rxe0")}
true`;
