/**
 * A host end for real ranks on this machine: a `symvirt agent` child over unix sockets, the controller's
 * own link and board, and jobs started with the preload and BTL/tcp as the proxied network.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Board } from "../../src/controller/board.js";
import { GuestLink, type LevelMessage } from "../../src/controller/guest-link.js";
import type { JobReport, RankPhase, RankReport, RankStateName, Want } from "../../src/protocol/messages.js";

const root = fileURLToPath(new URL("../..", import.meta.url));
export const preload = join(root, "build/preload/libsymvirt.so");
export const workload = (name: string) => join(root, "build/workloads", name);

export interface JobOptions {
  program: string;
  ranks: number;
  args?: string[];
  mca?: string[];
  btl?: string;
  env?: Record<string, string>;
  /** Preload mpirun itself too, not only the ranks. */
  everywhere?: boolean;
}

/** One mpirun: its output and its end. */
export class Job {
  stdout = "";
  stderr = "";
  readonly child: ChildProcess;
  readonly ended: Promise<number | null>;
  readonly stopFile: string;

  constructor(folder: string, number: number, options: JobOptions, socket: string) {
    this.stopFile = join(folder, `stop-${number}`);
    const variables: Record<string, string> = {
      SYMVIRT_SOCKET: socket,
      SYMVIRT_PROXY: "tcp",
      SYMVIRT_LOG: "info",
      LD_PRELOAD: preload,
      ...options.env,
    };
    const pass = Object.entries(variables).flatMap(([name, value]) => ["-x", `${name}=${value}`]);
    const own = ["--allow-run-as-root", "--oversubscribe", "--mca", "btl", options.btl ?? "tcp,self"];
    // Two cores: a rank that waits must let the others run, or every cycle costs a time slice.
    const yields = ["--mca", "mpi_yield_when_idle", "1", "--mca", "btl_tcp_if_include", "lo"];
    const args = [...own, ...yields, ...(options.mca ?? ["--mca", "pml", "ob1"]), ...pass];
    const program = [options.program, ...(options.args ?? ["--stop-file", this.stopFile])];
    this.child = spawn("mpirun", [...args, "-np", String(options.ranks), ...program], {
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, ...(options.everywhere === true ? { LD_PRELOAD: preload } : {}) },
    });
    this.child.stdout?.on("data", (chunk: Buffer) => {
      this.stdout += chunk.toString("utf8");
    });
    this.child.stderr?.on("data", (chunk: Buffer) => {
      this.stderr += chunk.toString("utf8");
    });
    this.ended = new Promise((resolve) => this.child.once("close", (code) => resolve(code)));
  }

  /** Asks the workload to end and waits for it. */
  async finish(): Promise<number | null> {
    writeFileSync(this.stopFile, "");
    return await this.ended;
  }
}

export class RankHost {
  readonly folder = mkdtempSync(join(tmpdir(), "symvirt-ranks-"));
  readonly socket = join(this.folder, "ranks.sock");
  readonly jobs: Job[] = [];
  readonly link: GuestLink;
  agent: ChildProcess | undefined;
  #agentEnded: Promise<void> = Promise.resolve();
  #board: Board | undefined;
  #wants: Omit<Want, "session">[] = [];
  cycle = 0;
  step = 0;
  #names: string[] = [];
  /** Ranks of each job met: the board must know it also while there is no agent. */
  #worlds = new Map<string, number>();

  constructor() {
    const port = join(this.folder, "port");
    this.link = new GuestLink({
      vm: "here",
      redialMs: 20,
      helloEveryMs: 200,
      dial: (signal) =>
        new Promise((resolve, reject) => {
          const socket = connect(port);
          const abort = () => socket.destroy(new Error("stopped"));
          signal.addEventListener("abort", abort, { once: true });
          socket.once("close", () => signal.removeEventListener("abort", abort));
          socket.once("connect", () => resolve(socket));
          socket.once("error", reject);
        }),
      level: () => this.#level(),
    });
    this.link.on("post", (post) => void this.#board?.post("here", post));
  }

  async start(): Promise<this> {
    this.startAgent();
    this.link.start();
    await this.link.ready(AbortSignal.timeout(15_000));
    return this;
  }

  startAgent(): void {
    const args = ["agent", "--port", `unix-listen:${join(this.folder, "port")}`, "--socket", this.socket];
    const child = spawn(
      process.execPath,
      [join(root, "bin/symvirt"), ...args, "--hooks", join(this.folder, "hooks")],
      { stdio: "ignore" },
    );
    this.agent = child;
    this.#agentEnded = new Promise((resolve) => child.once("close", () => resolve()));
  }

  async killAgent(): Promise<void> {
    this.agent?.kill("SIGKILL");
    await this.#agentEnded;
    // A killed agent leaves its socket, and the next one does not take over what may be another's.
    rmSync(join(this.folder, "port"), { force: true });
    await this.until("the link to notice", () => this.link.hello === undefined);
  }

  run(options: JobOptions): Job {
    const job = new Job(this.folder, this.jobs.length, options, this.socket);
    this.jobs.push(job);
    return job;
  }

  /** Ends everything started. */
  async stop(): Promise<void> {
    await this.link.stop();
    for (const { child, ended } of this.jobs) {
      // SIGTERM: mpirun ends its ranks and removes its session folder.
      if (child.exitCode === null && child.signalCode === null) child.kill("SIGTERM");
      await ended;
    }
    this.agent?.kill("SIGTERM");
    await this.#agentEnded;
    rmSync(this.folder, { recursive: true, force: true });
  }

  /** What the agent of now says; nothing while there is none. */
  get #state() {
    return this.link.hello === undefined ? undefined : this.link.state;
  }

  job(name: string): JobReport | undefined {
    return this.#state?.jobs.find((j) => j.job === name);
  }

  /** Resolves when `probe` gives something of the guest's states; fails with `what` and the last state. */
  async until<T>(what: string, probe: () => T | undefined | false, ms = 15_000): Promise<T> {
    const end = performance.now() + ms;
    for (;;) {
      const value = probe();
      if (value !== undefined && value !== false) return value;
      if (performance.now() > end) {
        const ranks = this.link.state?.jobs.flatMap((j) =>
          j.ranks.map((r) => `${j.job}:${r.rank} ${r.state} ${r.cycle}/${r.step} ${r.detail}`),
        );
        const output = this.jobs.map((j) => j.stderr.slice(-2000)).join("\n");
        throw new Error(
          `Waited ${ms} ms in vain for ${what} (${this.link.trouble})\n${ranks?.join("\n")}\n${output}`,
        );
      }
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
  }

  /** The name of the newest job of that many ranks whose ranks are all there, in that state. */
  async joined(
    ranks: number,
    state: RankStateName = "running",
    but: readonly string[] = [],
  ): Promise<string> {
    const name = await this.until(`${ranks} ranks to be ${state}`, () => {
      const found = this.#state?.jobs.filter(
        (j) => j.ranks.length === ranks && j.ranks.every((r) => r.state === state) && !but.includes(j.job),
      );
      return found?.at(-1)?.job;
    });
    this.#worlds.set(name, ranks);
    return name;
  }

  /** Opens the next cycle over these jobs. */
  begin(names: string[]): void {
    this.cycle++;
    this.step = 0;
    this.#names = names;
    this.#board = new Board({
      cycle: this.cycle,
      jobs: names.map((job) => ({ job, worldSize: this.#worlds.get(job) ?? 0 })),
      mayPost: () => true,
      onQuiet: () => undefined,
      onComplete: (_job, parts) => this.link.send(parts()),
      onOverflow: () => undefined,
    });
  }

  /** The next order of the cycle to all its jobs. */
  order(phase: RankPhase): void {
    this.step++;
    const board = this.#board;
    if (board === undefined) throw new Error("No cycle is open.");
    board.open(this.step);
    const { cycle, step } = this;
    this.#wants = this.#names.map((job) => {
      return { type: "want", job, cycle, step, phase, quietComplete: board.quietComplete(job) };
    });
    this.link.send(this.#wants);
  }

  /** Until every rank (or those chosen) of the cycle's jobs answers the last order by this state. */
  async reached(
    state: RankStateName,
    which: (rank: RankReport) => boolean = () => true,
    ms?: number,
  ): Promise<void> {
    const { cycle, step } = this;
    await this.until(
      `${state} in ${cycle}/${step}`,
      () =>
        this.#names.every((name) => {
          const ranks = this.job(name)?.ranks.filter(which) ?? [];
          const right = (r: RankReport) => r.state === state && r.cycle === cycle && r.step === step;
          return ranks.length > 0 && ranks.every(right);
        }),
      ms,
    );
  }

  /** One whole cycle: park, run again. */
  async turn(names: string[]): Promise<void> {
    this.begin(names);
    this.order("park");
    await this.reached("parked");
    this.order("run-openib");
    await this.reached("running");
  }

  *#level(): Iterable<LevelMessage> {
    yield* this.#board?.level(this.#names) ?? [];
    yield* this.#wants;
  }
}

/** What a process holds: descriptors, threads, mappings, resident bytes. */
export async function holdings(pid: number) {
  const count = async (what: string) => (await readdir(`/proc/${pid}/${what}`)).length;
  const lines = readFileSync(`/proc/${pid}/maps`, "utf8").split("\n").length;
  const resident = Number(readFileSync(`/proc/${pid}/statm`, "utf8").split(" ")[1]) * 4096;
  return { descriptors: await count("fd"), threads: await count("task"), mappings: lines, resident };
}
