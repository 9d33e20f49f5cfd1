/** The lab's hosts for real: namespaces, bridges, taps, and nothing of them afterwards. */
import { execFileSync, spawn } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { labDown } from "../../src/lab/down.js";
import { createNetwork, listNamespaces } from "../../src/lab/network.js";
import { cacheRoot, labPaths } from "../../src/lab/paths.js";
import { preflight } from "../../src/lab/preflight.js";

const isRoot = process.getuid?.() === 0;
if (!isRoot) console.log("lab-network: skipped, network namespaces need root");

const lab = `t${process.pid % 100_000}`;
const other = `${lab}-h1`;
const ip = (...args: string[]): string => execFileSync("ip", args, { encoding: "utf8" });

describe.skipIf(!isRoot)("the lab's network", () => {
  let root: string;
  beforeEach(() => {
    root = mkdtempSync(join(tmpdir(), "symvirt-lab-"));
    process.env.SYMVIRT_LAB_ROOT = join(root, "run");
    process.env.XDG_CACHE_HOME = join(root, "cache");
  });
  afterEach(async () => {
    await labDown({ name: lab });
    await labDown({ name: other });
    rmSync(root, { recursive: true });
  });

  it("joins hosts over the switch, and goes without a trace", async () => {
    await createNetwork({ lab, hosts: 2, vms: 2 });
    expect((await listNamespaces(lab)).sort()).toEqual([`sv-${lab}-h1`, `sv-${lab}-h2`, `sv-${lab}-sw`]);
    // A real round trip: a listener on one host, a client on the other.
    const code =
      "const n=require('net');const s=n.createServer(c=>c.end('hi')).listen(7000,'10.77.0.102',()=>console.log('up'))";
    const server = spawn("ip", ["netns", "exec", `sv-${lab}-h2`, process.execPath, "-e", code]);
    await new Promise((resolve) => server.stdout.once("data", resolve));
    const client = "require('net').connect(7000,'10.77.0.102').on('data',d=>{process.stdout.write(d)})";
    const heard = ip("netns", "exec", `sv-${lab}-h1`, process.execPath, "-e", client);
    expect(heard).toBe("hi");
    const links = ip("-n", `sv-${lab}-h2`, "-o", "link");
    for (const name of ["sv-vm1-m", "sv-vm1-f", "sv-vm2-m", "sv-vm2-f"]) expect(links).toContain(`${name}:`);

    const ended = new Promise((resolve) => server.once("exit", (_, signal) => resolve(signal)));
    expect(await labDown({ name: lab })).toBe(true);
    expect(await ended).toBe("SIGKILL");
    expect(await listNamespaces(lab)).toEqual([]);
    expect(await labDown({ name: lab })).toBe(false);
  });

  it("leaves a lab of a similar name alone", async () => {
    await createNetwork({ lab, hosts: 1, vms: 1 });
    await createNetwork({ lab: other, hosts: 1, vms: 1 });
    await labDown({ name: lab });
    expect((await listNamespaces(other)).length).toBe(2);
  });

  it("takes down what a lab that crashed half-way left", async () => {
    const paths = labPaths(lab);
    mkdirSync(join(paths.run, "h1"), { recursive: true });
    mkdirSync(paths.disks, { recursive: true });
    const pidfile = join(paths.run, "h1", "vm1.pid");
    const daemon = spawn("sh", ["-c", "sleep 60; :", "sh", "-pidfile", pidfile]);
    const ended = new Promise((resolve) => daemon.once("exit", (_, signal) => resolve(signal)));
    writeFileSync(pidfile, `${daemon.pid}\n`);
    writeFileSync(join(paths.run, "cluster.yaml"), "version: [");
    writeFileSync(join(paths.disks, "vm1.qcow2"), "");
    execFileSync("ip", ["netns", "add", `sv-${lab}-h1`]);

    await labDown({ name: lab });
    expect(await ended).toBe("SIGKILL");
    expect(existsSync(paths.run)).toBe(false);
    expect(existsSync(paths.disks)).toBe(false);
    expect(await listNamespaces(lab)).toEqual([]);
  });

  it("refuses before anything is made while a lab of that name is there", async () => {
    const options = { lab, vms: 1, hosts: 1, cardless: [], paths: labPaths(lab), cache: cacheRoot() };
    await preflight(options);
    execFileSync("ip", ["netns", "add", `sv-${lab}-h1`]);
    await expect(preflight(options)).rejects.toMatchObject({
      exit: "refused",
      hint: expect.stringContaining("lab down"),
    });
    await expect(preflight({ ...options, cardless: ["h7"] })).rejects.toMatchObject({ exit: "usage" });
    await expect(preflight({ ...options, vms: 3 })).rejects.toMatchObject({ exit: "usage" });
  });
});
