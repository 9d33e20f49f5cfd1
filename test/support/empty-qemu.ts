/** QEMUs without a guest: q35, 64 MiB, one root port, firmware only. For tests of what needs no guest. */
import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { QemuDriver } from "../../src/vmm/qemu/driver.js";
import { QemuSession } from "../../src/vmm/qemu/session.js";

export interface EmptyQemu {
  name: string;
  qmp: string;
  pid: number;
  driver: QemuDriver;
  /** SIGKILL, and gone when it resolves. */
  kill(): Promise<void>;
  /** A client of its own, only while the driver's is closed. */
  session(): QemuSession;
}

/** Starts QEMUs in a folder of their own; `end` leaves nothing of them. */
export class QemuNest {
  readonly folder: Promise<string> = mkdtemp(join(tmpdir(), "symvirt-qemu-"));
  readonly #running: EmptyQemu[] = [];

  async start(name: string, extra: string[] = [], ports = { from: 49152, to: 49215 }): Promise<EmptyQemu> {
    const folder = await this.folder;
    const qmp = join(folder, `${name}.qmp`);
    const child = spawn(
      "qemu-system-x86_64",
      [
        ...[
          "-machine",
          "q35",
          "-accel",
          "tcg",
          "-m",
          "64",
          "-display",
          "none",
          "-nodefaults",
          "-no-user-config",
        ],
        ...["-device", "pcie-root-port,id=rp0,chassis=1,slot=1"],
        ...["-qmp", `unix:${qmp},server=on,wait=off`, ...extra],
      ],
      { stdio: ["ignore", "ignore", "pipe"] },
    );
    let stderr = "";
    child.stderr.on("data", (text: Buffer) => {
      stderr += text.toString();
    });
    const gone = new Promise<void>((resolve) => child.once("close", () => resolve()));
    const target = { vm: name, host: "here", dial: [], qmp, channel: join(folder, `${name}.channel`) };
    const kill = async () => {
      child.kill("SIGKILL");
      await gone;
    };
    const qemu: EmptyQemu = {
      name,
      qmp,
      pid: child.pid as number,
      kill,
      session: () => new QemuSession(target),
      driver: new QemuDriver({
        target,
        cards: new Map([["hca0", "rp0"]]),
        listen: { address: "127.0.0.1", ports },
        end: kill,
      }),
    };
    this.#running.push(qemu);
    const until = Date.now() + 20_000;
    for (;;) {
      try {
        await qemu.driver.inspect(AbortSignal.timeout(10_000));
        return qemu;
      } catch (error) {
        if (child.exitCode !== null || Date.now() > until) {
          throw new Error(`QEMU ${name} did not start: ${stderr}`, { cause: error });
        }
        await sleep(50);
      }
    }
  }

  async end(): Promise<void> {
    for (const qemu of this.#running) {
      await qemu.driver.close();
      await qemu.kill();
    }
    await rm(await this.folder, { recursive: true, force: true });
  }
}

/** A loopback port nobody listens on. */
export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      const port = typeof address === "object" && address !== null ? address.port : 0;
      server.close(() => resolve(port));
    });
  });
}
