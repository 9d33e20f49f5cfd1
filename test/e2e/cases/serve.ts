/** `symvirt serve` over a lab: an alert empties a host, and a QEMU that dies is no end of the job. */
import { randomBytes } from "node:crypto";
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { SetReport, StatusReport } from "../../../src/index.js";
import { run } from "../../../src/lab/process.js";
import { call } from "../../../src/serve/client.js";
import { words } from "../../../src/testbed/command.js";
import { Job } from "../../../src/testbed/job.js";
import { expectOn } from "../../../src/testbed/outcomes.js";
import type { E2eLab, RawCluster, RawHost } from "../support/lab-fixture.js";
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

/** A server over the lab's cluster file with a policy in it. */
async function startServer(lab: E2eLab, change: (raw: RawCluster) => void) {
  const file = lab.variant("served", change);
  const { state } = lab.lab.cluster;
  const [socket, tokenFile] = [join(state, "serve.sock"), join(state, "token")];
  const token = randomBytes(32).toString("hex");
  writeFileSync(tokenFile, `${token}\n`, { mode: 0o600 });
  const target = { server: `unix:${socket}`, token };
  const command = lab.start(["serve", "--token-file", tokenFile], file);
  await until("a socket of the server", 30_000, async () => (existsSync(socket) ? true : undefined));
  return {
    target,
    asks: ["--server", target.server, "--token-file", tokenFile, "--json"],
    status: async () => (await call(target, "GET", "/v1/status")) as Served,
    /** Resolves when the policy has seen all VMs alive: only then can they die for it. */
    seesAll: async () => {
      await until("a look of the policy at all VMs", 60_000, async () =>
        lab.vms.every((vm) => seenBy(state).includes(vm)) ? true : undefined,
      );
    },
    /** Resolves when the policy has restarted the VMs. */
    restarts: async () => {
      await timed("restart by the policy", () =>
        until("a restart by the policy", 300_000, async () => {
          const now = (await call(target, "GET", "/v1/status")) as Served;
          const { phase, attempts, message } = now.server.policy.reactive;
          expect(phase, message).not.toBe("stuck");
          return phase === "watching" && attempts === 1 ? true : undefined;
        }),
      );
    },
    end: async () => {
      command.kill("SIGTERM");
      const ended = await command.ended;
      expect(ended.code, words(ended)).toBe(0);
    },
  };
}

/**
 * The host as one that is no longer there while the file exists: no command runs on it, no socket of it is reached.
 * Bytes that already flow stop, too.
 */
function severable(host: RawHost, file: string): void {
  host.run = [
    "sh",
    "-c",
    '[ ! -e "$0" ] || { echo "no route to host" >&2; exit 255; }; exec "$@"',
    file,
    ...host.run,
  ];
  const dialer = `
    const [file, socket] = process.argv.slice(1);
    const gone = () => require("node:fs").existsSync(file) && process.exit(255);
    gone();
    setInterval(gone, 100);
    const stream = require("node:net").connect(socket).on("error", () => process.exit(1)).on("close", () => process.exit(0));
    process.stdin.pipe(stream).pipe(process.stdout);`;
  host.dial = [process.execPath, "-e", dialer, file, "{socket}"];
}

export function serveCases(lab: () => E2eLab): void {
  describe("serve", () => {
    it("an alert moves a VM away, and after the death of a QEMU all go on from the last checkpoint", async () => {
      const job = await Job.start(lab(), "ring", { detached: true });
      const before = await job.expectOpenib();
      const server = await startServer(lab(), (raw) => {
        raw.policy = { reactive: { every: "1h", watch: "1s" }, proactive: {} };
      });
      const { target, status } = server;

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

      const taken = await lab().cli(["checkpoint", ...server.asks]);
      expect(taken.code, words(taken)).toBe(0);
      const { checkpoint: id } = JSON.parse(taken.stdout) as SetReport;
      await server.seesAll();
      const [dying = ""] = await lab().qemuHosts("vm1");
      process.kill(lab().qemuPid("vm1", dying), "SIGKILL");
      await server.restarts();
      const { vms } = await status();
      for (const { vm, host: now } of vms) await expectOn(lab(), vm, now);
      await job.expectGoesOn(await job.expectOpenib({ since: moved, epochs: 1 }));
      await job.expectRightEnd();

      await server.end();
      say(`${vms.map(({ vm, host: now }) => `${vm} on ${now}`).join(", ")} at the end`);
      const removed = await lab().cli(["checkpoints", "rm", id]);
      expect(removed.code, words(removed)).toBe(0);
    });

    it("a host that is cut off is fenced, and its VM goes on elsewhere from the last checkpoint", async () => {
      const job = await Job.start(lab(), "ring", { detached: true });
      const before = await job.expectOpenib();
      const host = await lab().hostOf("vm2");
      const { state } = lab().lab.cluster;
      const cut = join(state, "cut-off");
      const uplinks = async (to: "up" | "down") => {
        for (const network of ["m", "f"])
          await run(["ip", "-n", lab().namespace(host), "link", "set", `sv-up-${network}`, to]);
      };
      const server = await startServer(lab(), (raw) => {
        const gone = raw.hosts[host];
        if (gone !== undefined) severable(gone, cut);
        // What a power switch does: everything on that host is dead, and it says so.
        const off = 'for f in "$1"/*.pid; do kill -9 "$(cat "$f")"; done; rm -f "$1"/*.pid';
        const runtime = lab().lab.cluster.hosts[host]?.runtime.replace(host, "{host}") ?? "";
        const fence = ["sh", "-c", off, "sh", runtime];
        raw.policy = { reactive: { every: "1h", watch: "1s", fence } };
      });
      const taken = await lab().cli(["checkpoint", ...server.asks]);
      expect(taken.code, words(taken)).toBe(0);
      await server.seesAll();
      try {
        writeFileSync(cut, "");
        await uplinks("down");
        await server.restarts();
      } finally {
        rmSync(cut, { force: true });
        await uplinks("up");
      }
      const { vms } = await server.status();
      expect(vms.map((v) => v.host)).not.toContain(host);
      for (const { vm, host: now } of vms) await expectOn(lab(), vm, now);
      await job.expectGoesOn(await job.expectOpenib({ since: before, epochs: 1 }));
      await job.expectRightEnd();
      await server.end();
      const removed = await lab().cli([
        "checkpoints",
        "rm",
        (JSON.parse(taken.stdout) as SetReport).checkpoint,
      ]);
      expect(removed.code, words(removed)).toBe(0);
    });
  });
}
