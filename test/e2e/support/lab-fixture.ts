/** A lab for a test file: up before its tests, down after them whatever happens, and what tests ask of it. */
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, expect } from "vitest";
import { parse, stringify } from "yaml";
import { Controller, type StatusReport } from "../../../src/index.js";
import {
  labDown,
  labExec,
  labPaths,
  labStatus,
  labUp,
  type OpenLab,
  packageRoot,
} from "../../../src/lab/index.js";
import { run, runForResult } from "../../../src/lab/process.js";
import { type CliResult, type CliRun, endRuns, runCli, startCli, words } from "./cli.js";
import { agentBack, hearAgain } from "./guest-facts.js";
import { say, until } from "./progress.js";

export interface LabShape {
  name: string;
  vms: number;
  hosts: number;
  ranksPerVm: number;
}

/** Why no lab can run on this machine; empty when one can. */
export function whyNoLab(): string {
  if (process.getuid?.() !== 0) return "the lab needs root";
  if (!existsSync("/dev/net/tun")) return "there is no /dev/net/tun";
  return "";
}

/** What tests change in a copy of a cluster file. */
export interface RawHost {
  run: string[];
  cards: Record<string, { options: Record<string, unknown>; identity: { mac?: string } }>;
}
export interface RawCluster {
  deadlines?: Record<string, string | number>;
  hosts: Record<string, RawHost>;
}

type RunningCycle = Extract<StatusReport["running"], { phase: string }>;

export class E2eLab {
  readonly shape: LabShape;
  readonly lab: OpenLab;
  readonly controller: Controller;

  constructor(shape: LabShape, lab: OpenLab, controller: Controller) {
    this.shape = shape;
    this.lab = lab;
    this.controller = controller;
  }

  get vms(): string[] {
    return Object.keys(this.lab.cluster.vms);
  }

  get worldSize(): number {
    return this.vms.length * this.shape.ranksPerVm;
  }

  start(args: readonly string[], cluster = this.lab.path): CliRun {
    return startCli(cluster, args);
  }

  async cli(args: readonly string[], cluster = this.lab.path): Promise<CliResult> {
    return await runCli(cluster, args);
  }

  async status(): Promise<StatusReport> {
    return await this.controller.status();
  }

  async hostOf(vm: string): Promise<string> {
    const found = (await this.status()).vms.find((v) => v.vm === vm);
    return found?.host ?? "";
  }

  /** The one host where no VM runs. */
  async freeHost(): Promise<string> {
    const used = (await this.status()).vms.map((v) => v.host);
    const free = Object.keys(this.lab.cluster.hosts).find((h) => !used.includes(h));
    if (free === undefined) throw new Error(`no free host: VMs are on ${used.join(", ")}`);
    return free;
  }

  /** Hosts where a QEMU of the VM runs, by the process table. */
  async qemuHosts(vm: string): Promise<string[]> {
    return (await labStatus(this.lab)).vms.find((v) => v.vm === vm)?.hosts ?? [];
  }

  qemuPid(vm: string, host: string): number {
    return Number(
      readFileSync(join(this.lab.cluster.hosts[host]?.runtime ?? "", `${vm}.pid`), "utf8").trim(),
    );
  }

  namespace(host: string): string {
    return `sv-${this.shape.name}-${host}`;
  }

  /** Runs a shell line in a guest; it must succeed. Returns stdout. */
  async guest(vm: string, line: string): Promise<string> {
    const result = await labExec(this.lab, vm, ["sh", "-c", line], { signal: AbortSignal.timeout(120_000) });
    if (result.code !== 0) throw new Error(`"${line}" in ${vm} gave ${result.code}: ${result.stderr}`);
    return result.stdout;
  }

  /** A copy of the cluster file with the same state folder and something changed. */
  variant(name: string, change: (cluster: RawCluster) => void): string {
    const cluster = parse(readFileSync(this.lab.path, "utf8")) as RawCluster;
    change(cluster);
    const path = join(labPaths(this.shape.name).run, `${name}.yaml`);
    writeFileSync(path, stringify(cluster), { mode: 0o600 });
    return path;
  }

  /** Resolves when the running cycle is in the phase. Fails when the command ends before. */
  async inPhase(
    run: CliRun,
    phase: string,
    alsoIf: (running: RunningCycle) => boolean = () => true,
  ): Promise<StatusReport> {
    let seen = "";
    return await until(
      `phase ${phase} of symvirt ${run.args.join(" ")}`,
      180_000,
      async () => {
        const result = run.result();
        if (result !== undefined)
          throw new Error(`it ended without phase ${phase} (${seen}): ${words(result)}`);
        const status = await this.status();
        const cycle = status.running !== null && "phase" in status.running ? status.running : undefined;
        const now = cycle?.phase ?? "";
        if (now !== "" && !seen.endsWith(now)) seen += ` ${now}`;
        return now === phase && cycle !== undefined && alsoIf(cycle) ? status : undefined;
      },
      { pollMs: 30, why: () => `phases seen:${seen}` },
    );
  }

  /** Resolves when memory is on its way to the destination. */
  async inPreCopy(run: CliRun): Promise<void> {
    await this.inPhase(run, "pre-copy", ({ migration }) => (migration?.transferred ?? 0) > 0);
  }

  /** Puts right whatever a failed test may have left: faults, cycles, jobs. */
  async mend(): Promise<void> {
    say("mending after a failed test");
    await endRuns();
    for (const host of Object.keys(this.lab.cluster.hosts))
      await runForResult(["ip", "-n", this.namespace(host), "link", "set", "sv-up-m", "up"]);
    for (const vm of this.vms)
      await this.guest(vm, mendScript).catch((e: unknown) => say(`${vm}: ${String(e)}`));
    const aborted = await this.cli(["abort"]);
    if (aborted.code !== 0) say(`symvirt abort: ${words(aborted)}`);
    for (const vm of this.vms)
      await this.guest(vm, killJobs).catch((e: unknown) => say(`${vm}: ${String(e)}`));
    await until("no ranks left", 60_000, async () =>
      (await this.status()).jobs.length === 0 ? true : undefined,
    ).catch((e: unknown) => say(String(e)));
  }
}

/** Ends jobs by pid: whatever runs from the workloads' folder, and their launchers. */
const killJobs = `
for p in /proc/[0-9]*; do
  case "$(readlink $p/exe)" in
    /opt/symvirt/build/workloads/*|/usr/bin/orted|/usr/bin/orterun|/usr/bin/mpirun*) kill -9 \${p#/proc/} ;;
  esac
done
rm -f /tmp/e2e-*
true`;

const mendScript = `
rm -f /run/symvirt/hook-delay /run/symvirt/hook-fail
${hearAgain}
${agentBack}
true`;

/**
 * Outlives the test process and takes the lab down when that ends in whatever way: it waits for the end of
 * its stdin, which is ours. In a session of its own, so Ctrl-C does not reach it.
 */
function startUndertaker(name: string): ChildProcess {
  const script = `cat >/dev/null; exec "$0" "$1" lab down --name "$2" >/dev/null 2>&1`;
  const child = spawn("sh", ["-c", script, process.execPath, join(packageRoot, "bin/symvirt"), name], {
    detached: true,
    stdio: ["pipe", "ignore", "ignore"],
  });
  child.unref();
  return child;
}

/** Registers hooks that bring a lab up and down round the tests of a file. `get` is for the tests. */
export function useLab(shape: LabShape): { get: () => E2eLab; down: () => Promise<void> } {
  let lab: E2eLab | undefined;
  let undertaker: ChildProcess | undefined;
  const down = async (): Promise<void> => {
    await endRuns();
    if (process.env.SYMVIRT_E2E_KEEP !== undefined) return;
    await lab?.controller.close();
    lab = undefined;
    await labDown({ name: shape.name, say });
    undertaker?.stdin?.end();
  };
  beforeAll(async () => {
    const { run: folder, cluster } = labPaths(shape.name);
    if (process.env.SYMVIRT_E2E_KEEP === undefined) {
      // Left by a run that was killed together with its undertaker.
      if (existsSync(folder)) await labDown({ name: shape.name, say });
      undertaker = startUndertaker(shape.name);
    }
    if (!existsSync(cluster)) {
      const { name, vms, hosts, ranksPerVm } = shape;
      await labUp({ name, vms, hosts, ranks: ranksPerVm, say });
    }
    const { openLab } = await import("../../../src/lab/index.js");
    lab = new E2eLab(shape, openLab(cluster), await Controller.open(cluster));
  });
  afterEach(async ({ task }) => {
    if (task.result?.state !== "fail" || lab === undefined) return;
    // Whoever keeps the lab wants to look into it.
    if (process.env.SYMVIRT_E2E_KEEP === undefined) await lab.mend();
  });
  afterAll(down);
  const get = (): E2eLab => {
    if (lab === undefined) throw new Error("the lab is not up");
    return lab;
  };
  return { get, down };
}

/** Nothing of a lab is left: no process, namespace (and with it no tap), socket, disk or folder. */
export async function expectNothingLeft(name: string): Promise<void> {
  const paths = labPaths(name);
  expect(existsSync(paths.run), `${paths.run} is left`).toBe(false);
  expect(existsSync(paths.disks), `${paths.disks} is left`).toBe(false);
  const namespaces = (await run(["ip", "netns", "list"]))
    .split("\n")
    .filter((l) => l.startsWith(`sv-${name}-`));
  expect(namespaces).toEqual([]);
  expect((await run(["ip", "-o", "link"])).split("\n").filter((l) => l.includes(`sv-${name}`))).toEqual([]);
  const sockets = readFileSync("/proc/net/unix", "utf8")
    .split("\n")
    .filter((l) => l.includes(`${paths.run}/`));
  expect(sockets).toEqual([]);
  const processes = readdirSync("/proc")
    .filter((p) => /^\d+$/.test(p))
    .map((pid) => `${pid} ${commandLine(pid)}`)
    .filter((line) => line.includes(`${paths.run}/`) || line.includes(`${paths.disks}/`));
  expect(processes).toEqual([]);
}

function commandLine(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ");
  } catch {
    // It has ended since the listing.
    return "";
  }
}
