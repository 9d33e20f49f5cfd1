import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { parse } from "yaml";
import { clusterFile } from "../controller/cluster-file.js";
import { launchArguments, vmPaths } from "../vmm/qemu/launch.js";
import { clusterText, type LabShape, labCluster, openLab } from "./lab-cluster.js";
import { initialCards } from "./up.js";

const shape: LabShape = {
  lab: "t",
  vms: 2,
  hosts: 3,
  memoryMiB: 768,
  cpus: 2,
  ranks: 1,
  cardless: ["h3"],
  accelerator: "tcg",
  paths: {
    run: "/run/symvirt/t",
    cluster: "/run/symvirt/t/cluster.yaml",
    state: "/run/symvirt/t/state",
    disks: "/d/t",
  },
  image: "/c/images/1",
  layer: "/c/layers/1",
};
const cluster = labCluster(shape);

describe("labCluster", () => {
  it("survives being written and read", () => {
    expect(clusterFile.parse(parse(clusterText(cluster)))).toEqual(cluster);
  });

  it("puts VM N on host N and leaves the rest as spares", () => {
    expect(Object.entries(cluster.vms).map(([vm, { host }]) => [vm, host])).toEqual([
      ["vm1", "h1"],
      ["vm2", "h2"],
    ]);
    expect(Object.keys(cluster.hosts)).toEqual(["h1", "h2", "h3"]);
  });

  it("offers a card for every VM on each host but the cardless", () => {
    expect(Object.keys(cluster.hosts.h1?.cards ?? {})).toEqual(["h1-nic1", "h1-nic2"]);
    expect(cluster.hosts.h3?.cards).toEqual({});
    expect(cluster.hosts.h2?.cards["h2-nic1"]?.identity.mac).toBe("52:54:00:88:02:01");
  });

  it("runs every host's commands in its namespace", () => {
    expect(cluster.hosts.h2?.run).toEqual(["ip", "netns", "exec", "sv-t-h2"]);
  });

  it("gives an emulated guest a RAM size whose pages QEMU looks at one by one", () => {
    const memory = (accelerator: "tcg" | "kvm") => {
      const { command = [] } = labCluster({ ...shape, accelerator }).vms.vm1 ?? {};
      return command[command.indexOf("-m") + 1];
    };
    expect(memory("kvm")).toBe("768");
    expect(memory("tcg")).toBe(`${768 * 1024 + 8}K`);
    expect((768 * 1024 + 8) % 256).not.toBe(0);
  });

  it("starts a VM of a cardless host without a card, in a slot one can be plugged into", () => {
    const bare = labCluster({ ...shape, cardless: ["h1"] });
    expect(bare.vms.vm1?.cards).toEqual({ hca0: { bus: "rp0" } });
    expect(initialCards(bare, "vm1")).toEqual({});
  });
});

describe("the command line", () => {
  const launch = (host: string, incoming: boolean) =>
    launchArguments({ cluster, vm: "vm1", host, incoming, cards: initialCards(cluster, "vm1") });

  it("is the same on source and destination but for the card, the folder and -incoming", () => {
    const source = launch("h1", false);
    const target = launch("h3", true);
    expect(source.slice(-2)).toEqual([
      "-device",
      "e1000e,id=hca0,bus=rp0,netdev=fabric,mac=52:54:00:88:01:01",
    ]);
    expect(target.slice(-2)).toEqual(["-incoming", "defer"]);
    expect(target.slice(0, -2)).toEqual(source.slice(0, -2).map((word) => word.replaceAll("/h1/", "/h3/")));
  });

  it("listens where the controller looks", () => {
    const paths = vmPaths(cluster, "vm1", "h3");
    const argv = launch("h3", true).join(" ");
    expect(argv).toContain(`unix:${paths.qmp},`);
    expect(argv).toContain(`path=${paths.channel},`);
    expect(argv).toContain(`-pidfile ${paths.pidfile}`);
    expect(argv).not.toMatch(/\{[a-z]+\}/);
  });

  it("has shape and accelerator", () => {
    const argv = launch("h1", false).join(" ");
    expect(argv).toContain("-smp 2 -m 786440K");
    expect(argv).toContain("-accel tcg,thread=multi -cpu max");
    const kvm = labCluster({ ...shape, accelerator: "kvm" });
    expect(kvm.vms.vm1?.command.join(" ")).toContain("-accel kvm -cpu host");
  });
});

describe("openLab", () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "symvirt-open-"));
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  it("reads what lab up wrote", () => {
    const path = join(folder, "cluster.yaml");
    writeFileSync(path, clusterText(cluster));
    expect(openLab(path)).toEqual({ cluster, lab: cluster.lab, path });
  });

  it("refuses a missing file and a cluster that is no lab", () => {
    const path = join(folder, "cluster.yaml");
    expect(() => openLab(path)).toThrow(/There is no cluster file/);
    const { lab: _, ...plain } = cluster;
    writeFileSync(path, clusterText(plain));
    expect(() => openLab(path)).toThrow(/is not one of a lab/);
  });
});
