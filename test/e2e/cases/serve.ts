/** `symvirt serve` over a lab: an alert empties a host, and a QEMU that dies is no end of the job. */
import { randomBytes } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { SetReport, StatusReport } from "../../../src/index.js";
import { call } from "../../../src/serve/client.js";
import { words } from "../../../src/testbed/command.js";
import { Job } from "../../../src/testbed/job.js";
import { expectOn } from "../../../src/testbed/outcomes.js";
import type { E2eLab } from "../support/lab-fixture.js";
import { say, timed, until } from "../support/progress.js";

interface Served extends StatusReport {
  server: {
    operation: unknown;
    policy: {
      reactive: { phase: string; message: string; attempts: number };
      proactive: { hosts: { host: string; state: string }[] };
    };
  };
}

/** VMs the policy has seen alive: only these can die for it. */
function seenBy(state: string): string[] {
  const file = join(state, "serve/reactive.json");
  if (!existsSync(file)) return [];
  return (JSON.parse(readFileSync(file, "utf8")) as { seen: string[] }).seen;
}

export function serveCases(lab: () => E2eLab): void {
  describe("serve", () => {
    it("an alert moves a VM away, and after the death of a QEMU all go on from the last checkpoint", async () => {
      const job = await Job.start(lab(), "ring", { detached: true });
      const before = await job.expectOpenib();
      const file = lab().variant("served", (raw) => {
        raw.policy = { reactive: { every: "1h", watch: "1s" }, proactive: {} };
      });
      const { state } = lab().lab.cluster;
      const [socket, tokenFile] = [join(state, "serve.sock"), join(state, "token")];
      const token = randomBytes(32).toString("hex");
      writeFileSync(tokenFile, `${token}\n`, { mode: 0o600 });
      const target = { server: `unix:${socket}`, token };
      const asks = ["--server", target.server, "--token-file", tokenFile, "--json"];
      const status = async () => (await call(target, "GET", "/v1/status")) as Served;
      const server = lab().start(["serve", "--token-file", tokenFile], file);
      await until("a socket of the server", 30_000, async () => (existsSync(socket) ? true : undefined));

      const host = await lab().hostOf("vm2");
      const alert = { status: "firing", labels: { alertname: "HostBad", host }, fingerprint: "e2e" };
      await call(target, "POST", "/v1/alerts", { body: { version: "4", status: "firing", alerts: [alert] } });
      await timed(`evacuation of ${host} by an alert`, () =>
        until("an empty host", 300_000, async () => {
          const now = (await status()).server.policy.proactive.hosts.find((h) => h.host === host)?.state;
          expect(now).not.toBe("failed");
          return now === "done" ? true : undefined;
        }),
      );
      expect(await lab().hostOf("vm2")).not.toBe(host);
      const moved = await job.expectOpenib({ since: before, epochs: 1, vm: "vm2" });
      await job.expectGoesOn(moved);
      const resolved = { ...alert, status: "resolved" };
      await call(target, "POST", "/v1/alerts", {
        body: { version: "4", status: "resolved", alerts: [resolved] },
      });

      const taken = await lab().cli(["checkpoint", ...asks]);
      expect(taken.code, words(taken)).toBe(0);
      const { checkpoint: id } = JSON.parse(taken.stdout) as SetReport;
      await until("a look of the policy at both VMs", 60_000, async () =>
        lab().vms.every((vm) => seenBy(state).includes(vm)) ? true : undefined,
      );
      const [dying = ""] = await lab().qemuHosts("vm1");
      process.kill(lab().qemuPid("vm1", dying), "SIGKILL");
      await timed("restart by the policy", () =>
        until("a restart by the policy", 300_000, async () => {
          const { phase, attempts, message } = (await status()).server.policy.reactive;
          expect(phase, message).not.toBe("stuck");
          return phase === "watching" && attempts === 1 ? true : undefined;
        }),
      );
      const { vms } = await status();
      for (const { vm, host: now } of vms) await expectOn(lab(), vm, now);
      await job.expectGoesOn(await job.expectOpenib({ since: moved, epochs: 1 }));
      await job.expectRightEnd();

      server.kill("SIGTERM");
      const ended = await server.ended;
      expect(ended.code, words(ended)).toBe(0);
      say(`${vms.map(({ vm, host: now }) => `${vm} on ${now}`).join(", ")} at the end`);
      const removed = await lab().cli(["checkpoints", "rm", id]);
      expect(removed.code, words(removed)).toBe(0);
    });
  });
}
