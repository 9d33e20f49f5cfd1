import { execFileSync, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type Cluster, clusterFile } from "../../controller/cluster-file.js";
import { deviceArgument, endQemu, launchArguments, launchQemu, vmPaths } from "./launch.js";
import { fill, quote } from "./run-on-host.js";

let folder: string;
const pids: number[] = [];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "symvirt-launch-"));
});
afterEach(() => {
  for (const pid of pids.splice(0)) {
    try {
      process.kill(pid, "SIGKILL");
    } catch {
      // Ended by the test, as it should be.
    }
  }
  rmSync(folder, { recursive: true });
});

/** A stand-in for QEMU: a shell that does what its one argument says, then lives as the daemon. */
function clusterWith(command: string[]): Cluster {
  return clusterFile.parse({
    version: 1,
    name: "t",
    state: folder,
    hosts: { h1: { address: "127.0.0.1", runtime: folder } },
    vms: { vm1: { host: "h1", command, cards: { hca0: { bus: "rp0" } } } },
  });
}

const daemon = (before: string): string[] => [
  "sh",
  "-c",
  `${before}; nohup sh -c 'while :; do sleep 0.1; done' -- -pidfile "$1" >/dev/null 2>&1 & echo $! >"$1"`,
  "sh",
  "{runtime}/{vm}.pid",
];

const isAlive = (pid: number): boolean =>
  existsSync(`/proc/${pid}`) && !/State:\sZ/.test(readFileSync(`/proc/${pid}/status`, "utf8"));

describe("words for a shell and for QEMU", () => {
  it("quotes whatever a word contains", () => {
    for (const word of ["", "a b", "it's", "$HOME `id` \\", "-n", "a\nb"])
      expect(execFileSync("sh", ["-c", `printf %s ${quote(word)}`], { encoding: "utf8" })).toBe(word);
  });

  it("fills known placeholders only", () => {
    expect(fill("{a}{b}{a}", { a: "{b}" })).toBe("{b}{b}{b}");
    expect(fill("{toString}", {})).toBe("{toString}");
  });

  it("doubles commas and spells booleans as QEMU does", () => {
    const card = {
      driver: "e1000e",
      options: { netdev: "x,y", rombar: 0, multifunction: true },
      identity: {},
    };
    expect(deviceArgument("hca0", "rp0", card)).toBe(
      "e1000e,id=hca0,bus=rp0,netdev=x,,y,rombar=0,multifunction=on",
    );
  });
});

describe("launchArguments", () => {
  it("names what is unknown, and what there is", () => {
    const cluster = clusterWith(["true"]);
    const card = { driver: "e1000e", options: {}, identity: {} };
    const base = { cluster, vm: "vm1", host: "h1", incoming: false };
    expect(() => launchArguments({ ...base, vm: "vm9" })).toThrow('Unknown VM "vm9"');
    expect(() => launchArguments({ ...base, host: "toString" })).toThrow('Unknown host "toString"');
    expect(() => launchArguments({ ...base, cards: { hca7: card } })).toThrow('no card slot "hca7"');
  });
});

describe("launchQemu and endQemu", () => {
  const signal = AbortSignal.timeout(20_000);

  it("starts, ends, and ends again", async () => {
    const cluster = clusterWith(daemon("true"));
    await launchQemu({ cluster, vm: "vm1", host: "h1", incoming: false, signal });
    const pid = Number(readFileSync(vmPaths(cluster, "vm1", "h1").pidfile, "utf8"));
    pids.push(pid);
    expect(isAlive(pid)).toBe(true);
    await endQemu(cluster, "vm1", "h1");
    expect(isAlive(pid)).toBe(false);
    expect(existsSync(vmPaths(cluster, "vm1", "h1").pidfile)).toBe(false);
    await endQemu(cluster, "vm1", "h1");
  });

  it("fails with the program's own words", async () => {
    const cluster = clusterWith(["sh", "-c", "echo no such bus >&2; exit 1"]);
    const launch = launchQemu({ cluster, vm: "vm1", host: "h1", incoming: true, signal });
    await expect(launch).rejects.toThrow(/"vm1" on "h1" did not start: no such bus/);
  });

  it("leaves nothing running when it is aborted", async () => {
    const cluster = clusterWith(daemon("true"));
    const stop = new AbortController();
    const slow = clusterWith([
      ...daemon("true").slice(0, 2),
      `${daemon("true")[2]}; sleep 30`,
      "sh",
      "{runtime}/{vm}.pid",
    ]);
    const launch = launchQemu({ cluster: slow, vm: "vm1", host: "h1", incoming: false, signal: stop.signal });
    const outcome = expect(launch).rejects.toThrow("enough");
    const { pidfile } = vmPaths(cluster, "vm1", "h1");
    await expect.poll(() => existsSync(pidfile) && readFileSync(pidfile, "utf8").length > 0).toBe(true);
    const pid = Number(readFileSync(pidfile, "utf8"));
    pids.push(pid);
    stop.abort(new Error("enough"));
    await outcome;
    expect(isAlive(pid)).toBe(false);
  });

  it("does not touch a process that only has the pid", async () => {
    const cluster = clusterWith(["true"]);
    const stranger = spawn("sleep", ["30"]);
    const pid = stranger.pid ?? 0;
    pids.push(pid);
    writeFileSync(vmPaths(cluster, "vm1", "h1").pidfile, `${pid}\n`);
    await endQemu(cluster, "vm1", "h1");
    expect(isAlive(pid)).toBe(true);
  });
});
