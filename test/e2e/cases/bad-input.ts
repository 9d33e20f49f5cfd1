/** Wrong names, missing sockets, silent and hostile guests: a precise answer and the documented exit code. */
import { renameSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { words } from "../../../src/testbed/command.js";
import { restoreAgent, withholdAgent } from "../support/guest-facts.js";
import type { E2eLab } from "../support/lab-fixture.js";
import { timed } from "../support/progress.js";

export function badInput(lab: () => E2eLab): void {
  describe("bad input", () => {
    // What does not answer is waited for until a deadline: shorter ones, as that much patience proves nothing.
    const expectCli = async (args: readonly string[], code: number, says: RegExp): Promise<void> => {
      const impatient = lab().variant("impatient", (raw) => {
        raw.deadlines = { ...raw.deadlines, hello: "8s", prepare: "15s" };
      });
      const result = await lab().cli(args, impatient);
      expect(result.code, words(result)).toBe(code);
      expect(result.stderr + result.stdout).toMatch(says);
    };

    it("an unknown VM, an unknown host, the same host", async () => {
      await expectCli(["migrate", "vm11", "--to", await lab().freeHost()], 2, /no VM "vm11".*vm1/s);
      await expectCli(["migrate", "vm1", "--to", "h33"], 2, /no host "h33".*h3/s);
      await expectCli(["migrate", "vm1", "--to", await lab().hostOf("vm1")], 3, /vm1 is on h\d already/);
    });

    it("a QMP socket that is gone", async () => {
      const host = await lab().hostOf("vm2");
      const socket = join(lab().lab.cluster.hosts[host]?.runtime ?? "", "vm2.qmp");
      renameSync(socket, `${socket}.away`);
      try {
        await expectCli(["migrate", "vm2", "--to", await lab().freeHost()], 7, /vm2/);
        await expectCli(["status"], 0, /vm1 .*running/);
      } finally {
        renameSync(`${socket}.away`, socket);
      }
      await expectCli(["status"], 0, /vm2 .*running/);
    });

    it("a guest without an agent, and one that writes garbage and a 10 MB line", async () => {
      const to = await lab().freeHost();
      await withholdAgent(lab(), "vm1");
      await expectCli(["plan", "vm1", "--to", to], 7, /agent of vm1/);
      await expectCli(["plan", "vm2", "--to", to], 0, /vm1/);

      await lab().guest(
        "vm1",
        `(timeout 60 sh -c 'while :; do
           head -c 300000 /dev/urandom; head -c 10000000 /dev/zero | tr "\\0" x; echo
         done >/dev/virtio-ports/org.symvirt.0' >/dev/null 2>&1 & echo $! >/run/symvirt/e2e-garbage) </dev/null`,
      );
      const status = await timed("status beside a hostile guest", () => lab().status());
      expect(status.vms.find((v) => v.vm === "vm2")).toMatchObject({ agent: { answers: true }, trouble: "" });
      expect(status.vms.find((v) => v.vm === "vm1")?.agent.answers).toBe(false);
      expect(status.vms.find((v) => v.vm === "vm1")?.trouble).toMatch(/quarantine|too long|garbage|agent/);
      await expectCli(["plan", "vm1", "--to", to], 7, /vm1/);

      await lab().guest(
        "vm1",
        "kill $(cat /run/symvirt/e2e-garbage) || true; rm -f /run/symvirt/e2e-garbage",
      );
      await restoreAgent(lab(), "vm1");
      await expectCli(["plan", "vm1", "--to", to], 0, /migrate vm1/);
    });
  });
}
