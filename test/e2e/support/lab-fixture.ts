/** A lab for a test file: up before its tests, down after them whatever happens, and what tests ask of it. */
import type { ChildProcess } from "node:child_process";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, expect } from "vitest";
import { parse, stringify } from "yaml";
import type { StatusReport } from "../../../src/index.js";
import { Journal } from "../../../src/controller/state/journal.js";
import { labDown, labPaths } from "../../../src/lab/index.js";
import { run, runForResult } from "../../../src/lab/process.js";
import { type CliRun, endRuns, words } from "../../../src/testbed/command.js";
import { Job, type JobOptions } from "../../../src/testbed/job.js";
import {
  bootTestbed,
  dismiss,
  type LabShape,
  openTestbed,
  startUndertaker,
  Testbed,
} from "../../../src/testbed/testbed.js";
import { mendScript } from "./guest-facts.js";
import { say, until } from "./progress.js";

/** Name of a lab of these tests. SYMVIRT_E2E_NAME keeps two runs on one machine apart. */
export function labName(kind: string): string {
  return `${process.env.SYMVIRT_E2E_NAME ?? "e2e"}-${kind}`;
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
  dial: string[];
  cards: Record<string, { options: Record<string, unknown>; identity: { mac?: string } }>;
}
export interface RawCluster {
  deadlines?: Record<string, string | number>;
  policy?: Record<string, object>;
  hosts: Record<string, RawHost>;
  vms: Record<string, { host: string; cards: Record<string, { bus: string; card?: string }> }>;
}

type RunningCycle = Extract<StatusReport["running"], { phase: string }>;

export type { LabShape };

export class E2eLab extends Testbed {
  namespace(host: string): string {
    return `sv-${this.shape.name}-${host}`;
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

  /** Resolves when the running cycle has entered the phase. By the journal: `status`, which asks every VM, may miss a short one. */
  async hasEntered(run: CliRun, phase: string): Promise<void> {
    const journal = new Journal(this.lab.cluster.state);
    await until(
      `phase ${phase} of symvirt ${run.args.join(" ")} in the journal`,
      180_000,
      async () => {
        const result = run.result();
        if (result !== undefined)
          throw new Error(`it ended before it was seen in ${phase}: ${words(result)}`);
        return journal.interrupted()?.phases.includes(phase) === true ? true : undefined;
      },
      { pollMs: 10 },
    );
  }

  /** Resolves when memory is on its way to the destination. */
  async inPreCopy(run: CliRun): Promise<void> {
    await this.inPhase(run, "pre-copy", ({ migration }) => (migration?.transferred ?? 0) > 0);
  }

  /** Puts right whatever a failed test may have left: faults, cycles, jobs. */
  async mend(): Promise<void> {
    say("mending after a failed test");
    await this.sayWarnings();
    await endRuns();
    for (const host of this.hosts)
      await runForResult(["ip", "-n", this.namespace(host), "link", "set", "sv-up-m", "up"]);
    await this.limitTcp(undefined);
    for (const vm of this.vms)
      await this.guest(vm, mendScript).catch((e: unknown) => say(`${vm}: ${String(e)}`));
    const aborted = await this.cli(["abort"]);
    if (aborted.code !== 0) say(`symvirt abort: ${words(aborted)}`);
    await this.killJobs();
    await until("no ranks left", 60_000, async () =>
      (await this.status()).jobs.length === 0 ? true : undefined,
    ).catch((e: unknown) => say(String(e)));
    for (const { vm, cards } of (await this.status()).vms) {
      if (cards.length > 0) continue;
      // A VM without a job gets a card where it is moved to.
      const moved = await this.cli(["migrate", vm, "--to", await this.freeHost()]);
      if (moved.code !== 0) say(`a card for ${vm}: ${words(moved)}`);
    }
  }

  /** Limits what the guests get over the management network, on every host; undefined: no limit any more. */
  async limitTcp(rate: string | undefined): Promise<void> {
    for (const host of this.hosts)
      for (const vm of this.vms) {
        const device = ["dev", `sv-${vm}-m`, "root"];
        const tc = ["tc", "-n", this.namespace(host), "qdisc"];
        if (rate === undefined) await runForResult([...tc, "del", ...device]);
        else
          await run([...tc, "replace", ...device, "tbf", "rate", rate, "burst", "64kb", "latency", "400ms"]);
      }
  }
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
    if (undertaker !== undefined) dismiss(undertaker);
  };
  beforeAll(async () => {
    const { run: folder, cluster } = labPaths(shape.name);
    if (process.env.SYMVIRT_E2E_KEEP === undefined) {
      // Left by a run that was killed together with its undertaker.
      if (existsSync(folder)) await labDown({ name: shape.name, say });
      undertaker = startUndertaker(shape.name);
    }
    const bed = existsSync(cluster) ? await openTestbed(shape, say) : await bootTestbed(shape, say);
    lab = new E2eLab(bed.shape, bed.lab, bed.controller, say);
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

/** A job that several tests share: started at first use, and anew when an earlier test has lost it. */
export function sharedJob(
  lab: () => E2eLab,
  program: string,
  options: JobOptions = {},
): { get: () => Promise<Job>; end: () => Promise<void> } {
  let job: Job | undefined;
  // When the test that ends it was left out.
  afterAll(async () => {
    if (job?.hasEnded === false) await job.expectRightEnd();
  });
  return {
    get: async () => {
      if (job === undefined || job.hasEnded) job = await Job.start(lab(), program, options);
      return job;
    },
    end: async () => {
      await job?.expectRightEnd();
      job = undefined;
    },
  };
}
