import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type Cluster, clusterFile } from "../../controller/cluster-file.js";
import { killVms, presentVms } from "./presence.js";

const never = new AbortController().signal;
let folder: string;
let cluster: Cluster;
const children: ChildProcess[] = [];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "symvirt-presence-"));
  cluster = clusterFile.parse({
    version: 1,
    name: "c",
    state: folder,
    hosts: {
      h1: { address: "127.0.0.1", runtime: `${folder}/h1 it's` },
      h2: { address: "127.0.0.1", runtime: `${folder}/h2`, run: ["false"] },
    },
    vms: { vm1: { host: "h1", command: ["q"] }, vm10: { host: "h1", command: ["q"] } },
  });
});
afterEach(() => {
  for (const child of children.splice(0)) child.kill("SIGKILL");
  rmSync(folder, { recursive: true, force: true });
});

/** A process that looks like the VM's QEMU: its command line names the pid file. It ignores SIGTERM. */
async function fakeQemu(vm: string): Promise<ChildProcess> {
  const child = spawn(process.execPath, [
    "-e",
    "process.on('SIGTERM',()=>{});setInterval(()=>{},1e6);console.log('up')",
    "--",
    "-pidfile",
    `${folder}/h1 it's/${vm}.pid`,
  ]);
  children.push(child);
  await new Promise((resolve) => child.stdout?.once("data", resolve));
  return child;
}

describe("presence of QEMU processes", () => {
  it("is told by the command line, without a pid file", async () => {
    expect(await presentVms(cluster, "h1", ["vm1", "vm10"], never)).toEqual(
      new Map([
        ["vm1", false],
        ["vm10", false],
      ]),
    );
    await fakeQemu("vm10");
    expect(await presentVms(cluster, "h1", ["vm1", "vm10"], never)).toEqual(
      new Map([
        ["vm1", false],
        ["vm10", true],
      ]),
    );
  });

  it("ends with killVms, of these VMs only", async () => {
    const ended = await fakeQemu("vm1");
    const stays = await fakeQemu("vm10");
    const gone = new Promise((resolve) => ended.once("exit", (_, signal) => resolve(signal)));
    await killVms(cluster, "h1", ["vm1"], never);
    expect(await gone).toBe("SIGKILL");
    expect(stays.exitCode ?? stays.signalCode).toBeNull();
    await killVms(cluster, "h1", ["vm1"], never);
  });

  it("is not known of a host that does not answer", async () => {
    const silence = { exit: "unreachable", message: expect.stringContaining("host h2 does not say") };
    await expect(presentVms(cluster, "h2", ["vm1"], never)).rejects.toMatchObject(silence);
    await expect(killVms(cluster, "h2", ["vm1"], never)).rejects.toMatchObject(silence);
    await expect(presentVms(cluster, "h1", ["vm1"], AbortSignal.abort())).rejects.toMatchObject({
      exit: "unreachable",
    });
  });
});
