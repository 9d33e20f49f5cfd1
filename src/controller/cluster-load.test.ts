import { describe, expect, it } from "vitest";
import { SymvirtError } from "../errors.js";
import { loadCluster, parseCluster } from "./cluster-file.js";

const good = `version: 1
name: c
state: /tmp/c
hosts:
  h1:
    address: 10.0.0.1
    runtime: /run/h1
    cards:
      card0: { driver: e1000e, identity: { mac: "52:54:00:00:00:01" } }
  h2: { address: 10.0.0.2, runtime: /run/h2 }
vms:
  vm1:
    host: h1
    command: [qemu-system-x86_64, -pidfile, "{runtime}/{vm}.pid"]
    cards:
      hca0: { bus: rp0, card: card0 }
limits: { maxDowntime: 500ms, bandwidth: 64M }
deadlines: { park: 2m }
`;

function complaint(text: string): string {
  try {
    parseCluster(text, "c.yaml");
  } catch (error) {
    expect(error).toBeInstanceOf(SymvirtError);
    expect((error as SymvirtError).exit).toBe("usage");
    return (error as SymvirtError).message;
  }
  throw new Error("it was taken");
}

describe("cluster file", () => {
  it("wants the pid file in a VM's command, as a dead VM is known by it", () => {
    const wrong = good.replace("{runtime}/{vm}.pid", "/elsewhere.pid");
    expect(() => parseCluster(wrong, "c.yaml")).toThrow(
      /c\.yaml:\d+:\d+: vms\.vm1\.command: must name the pid file: -pidfile \{runtime\}\/\{vm\}\.pid/,
    );
  });

  it("reads values with their units and fills in defaults", () => {
    const cluster = parseCluster(good, "c.yaml");
    expect(cluster.limits).toEqual({ maxDowntime: 500, bandwidth: 64 * 2 ** 20 });
    expect(cluster.deadlines).toMatchObject({ park: 120_000, hello: 15_000 });
    expect(cluster.vms.vm1?.qmp).toBe("{runtime}/{vm}.qmp");
    expect(cluster.checkpoints).toBeUndefined();
    expect(parseCluster(`${good}checkpoints: { path: /mnt/c, keep: 3 }\n`, "c.yaml").checkpoints).toEqual({
      path: "/mnt/c",
      level: 1,
      keep: 3,
    });
  });

  it.each([
    [
      "an unknown key",
      good.replace("runtime: /run/h1", "runtme: /run/h1"),
      'c.yaml:7:5: hosts.h1.runtme: unknown key, did you mean "runtime"?',
    ],
    [
      "an unknown key at the top",
      `${good}hots: {}\n`,
      'c.yaml:19:1: hots: unknown key, did you mean "hosts"?',
    ],
    [
      "an unknown key of the checkpoint store",
      `${good}checkpoints: { path: /c, kep: 3 }\n`,
      'checkpoints.kep: unknown key, did you mean "keep"?',
    ],
    [
      "a relative checkpoint store",
      `${good}checkpoints: { path: c }\n`,
      "checkpoints.path: an absolute path",
    ],
    ["a level that zstd has not", `${good}checkpoints: { path: /c, level: 20 }\n`, "checkpoints.level: "],
    [
      "an unknown deadline",
      good.replace("park: 2m", "parking: 2m"),
      'deadlines.parking: unknown key, did you mean "park"?',
    ],
    [
      "a wrong unit",
      good.replace("2m", "2 minutes"),
      'c.yaml:18:20: deadlines.park: a duration such as "30s"',
    ],
    ["a relative folder", good.replace("state: /tmp/c", "state: tmp"), "c.yaml:3:8: state:"],
    [
      "a host that is not there",
      good.replace("host: h1", "host: h3"),
      'c.yaml:13:11: vms.vm1.host: there is no host "h3", did you mean "h1"?',
    ],
    [
      "a card that is not there",
      good.replace("card: card0 }", "card: card1 }"),
      'vms.vm1.cards.hca0.card: host "h1" has no card "card1", did you mean "card0"?',
    ],
    [
      "ports upside down",
      good.replace("address: 10.0.0.1", "address: 10.0.0.1\n    ports: { from: 9, to: 8 }"),
      "hosts.h1.ports: from 9 is above to 8",
    ],
    [
      "a dial without its socket",
      good.replace("address: 10.0.0.1", "address: 10.0.0.1\n    dial: [socat]"),
      'hosts.h1.dial: must name "{socket}"',
    ],
    ["broken YAML", good.replace("hosts:", "hosts: ["), "c.yaml:"],
    ["a key twice", `${good}name: d\n`, "c.yaml:19:1: Map keys must be unique"],
  ])("%s is told with its place", (_, text, expected) => {
    expect(complaint(text)).toContain(expected);
  });

  it("takes a time or never for parkAfter, and nothing else", () => {
    const limits = (value: string) => good.replace("maxDowntime: 500ms", `parkAfter: ${value}`);
    expect(parseCluster(limits("90s"), "c.yaml").limits.parkAfter).toBe(90_000);
    expect(parseCluster(limits("never"), "c.yaml").limits.parkAfter).toBe("never");
    expect(complaint(limits("soon"))).toContain('c.yaml:17:22: limits.parkAfter: a duration such as "30s"');
    expect(complaint(good.replace("maxDowntime: 500ms", "parkafter: 1s"))).toContain(
      'limits.parkafter: unknown key, did you mean "parkAfter"?',
    );
  });

  it("tells two VMs on one card", () => {
    const text = good.replace(
      "limits:",
      "  vm2:\n    host: h1\n    command: [q, -pidfile, '{runtime}/{vm}.pid']\n    cards:\n      hca0: { bus: rp0, card: card0 }\nlimits:",
    );
    expect(complaint(text)).toContain("vms.vm2.cards.hca0.card: card h1/card0 is already that of vm1.hca0");
  });

  it("tells two VMs on one socket or pid file: one would be taken for the other", () => {
    const text = good.replace(
      "limits:",
      `  vm2: { host: h1, command: [q, -pidfile, /p], pidfile: /p, qmp: /q, channel: /q, cards: {} }\nlimits:`,
    );
    expect(complaint(text)).toContain("vms.vm2.qmp: the same path as channel of vm2");
  });

  it("takes no duration that a timer cannot wait for", () => {
    expect(complaint(good.replace("maxDowntime: 500ms", "maxDowntime: 720h"))).toContain("at most 596h");
  });

  it("tells all complaints at once", () => {
    const text = good.replace("version: 1", "version: 2").replace("name: c", 'name: "-"');
    expect(complaint(text).split("\n")).toHaveLength(3);
  });

  it("says which file cannot be read", () => {
    expect(() => loadCluster("/nowhere/c.yaml")).toThrow(
      'cannot read the cluster file "/nowhere/c.yaml" (ENOENT)',
    );
  });
});
