/** From the cluster file to a moved VM: launch, dial through a command, channel, migrate, quit. */
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type Cluster, clusterFile } from "../../src/controller/cluster-file.js";
import { openQemuDriver, type QemuDriver } from "../../src/vmm/qemu/driver.js";
import { endQemu, launchQemu, vmPaths } from "../../src/vmm/qemu/launch.js";

const soon = () => AbortSignal.timeout(20_000);
/** What `socat - UNIX-CONNECT:{socket}` does, with what every test machine has. */
const dialler = [
  process.execPath,
  "-e",
  "const s = require('net').connect(process.argv[1]); process.stdin.pipe(s); s.pipe(process.stdout); s.on('close', () => process.exit())",
  "{socket}",
];

let folder: string;
let cluster: Cluster;
const drivers: QemuDriver[] = [];

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "symvirt-cluster-"));
  cluster = clusterFile.parse({
    version: 1,
    name: "test",
    state: join(folder, "state"),
    hosts: {
      h1: {
        address: "127.0.0.1",
        runtime: join(folder, "h1"),
        cards: { c1: { driver: "e1000e", options: { mac: "52:54:00:00:00:01" } } },
      },
      h2: { address: "127.0.0.1", runtime: join(folder, "h2"), dial: dialler },
    },
    vms: {
      vm1: {
        host: "h1",
        command: [
          ...["qemu-system-x86_64", "-name", "{vm}", "-machine", "q35", "-accel", "tcg", "-m", "64"],
          ...["-display", "none", "-nodefaults", "-daemonize", "-pidfile", "{runtime}/{vm}.pid"],
          ...["-qmp", "unix:{runtime}/{vm}.qmp,server=on,wait=off"],
          ...["-device", "pcie-root-port,id=rp0,chassis=1,slot=1", "-device", "virtio-serial-pci"],
          ...["-chardev", "socket,id=sv,path={runtime}/{vm}.channel,server=on,wait=off"],
          ...["-device", "virtserialport,chardev=sv,name=org.symvirt.0"],
        ],
        cards: { hca0: { bus: "rp0", card: "c1" } },
      },
    },
  });
});

afterEach(async () => {
  for (const driver of drivers.splice(0)) await driver.close();
  for (const host of Object.keys(cluster.hosts)) await endQemu(cluster, "vm1", host, { force: true });
  await rm(folder, { recursive: true, force: true });
});

async function launch(host: string, incoming: boolean): Promise<QemuDriver> {
  await launchQemu({ cluster, vm: "vm1", host, incoming, signal: soon() });
  const driver = openQemuDriver(cluster, "vm1", host);
  drivers.push(driver);
  return driver;
}

describe("a VM of the cluster file", () => {
  it("moves from a direct host to a dialled one, opens its channel there, and ends", async () => {
    const source = await launch("h1", false);
    const destination = await launch("h2", true);
    expect((await destination.inspect(soon())).status).toBe("inmigrate");
    expect((await source.inspect(soon())).machine).toBe((await destination.inspect(soon())).machine);

    await source.migrate({ uri: await destination.listen(soon()), signal: soon() });
    await destination.resume(soon());
    expect((await destination.inspect(soon())).status).toBe("running");

    const channel = await destination.openChannel(soon());
    channel.write("not read by anybody, as there is no guest\n");
    channel.destroy();

    const pids = await Promise.all(
      ["h1", "h2"].map(async (host) => Number(await readFile(vmPaths(cluster, "vm1", host).pidfile, "utf8"))),
    );
    await source.quit(soon());
    await destination.quit(soon());
    await destination.quit(soon());
    // A daemon's parent is init, which may take its time to reap it: an ended process has no command line.
    for (const pid of pids) expect(await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "")).toBe("");
    expect(existsSync(vmPaths(cluster, "vm1", "h1").qmp)).toBe(false);
  });

  it("is unreachable in the command's own words when the dial command fails", async () => {
    const host = cluster.hosts.h2;
    if (host !== undefined) host.dial = ["sh", "-c", "echo 'Host key verification failed' >&2; exit 255"];
    const driver = openQemuDriver(cluster, "vm1", "h2");
    drivers.push(driver);
    await expect(driver.inspect(soon())).rejects.toMatchObject({
      exit: "unreachable",
      message: expect.stringContaining("Host key verification failed"),
    });
  });

  it("tells a second QMP client that the socket is taken", async () => {
    const first = await launch("h1", false);
    await first.inspect(soon());
    const second = openQemuDriver(cluster, "vm1", "h1");
    drivers.push(second);
    await expect(second.inspect(AbortSignal.timeout(300))).rejects.toMatchObject({
      exit: "deadline",
      hint: expect.stringContaining("another QMP client"),
    });
    await first.close();
    expect((await second.inspect(soon())).status).toBe("running");
  });
});
