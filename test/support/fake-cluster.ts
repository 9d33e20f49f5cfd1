/** Hosts and VMs without a VMM: processes are table entries, guests are FakeGuests, every op can be made to fail. */
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Duplex, duplexPair } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { type Card, type Cluster, clusterFile } from "../../src/controller/cluster-file.js";
import type { Strategy } from "../../src/controller/strategy.js";
import type { Vmm } from "../../src/controller/vmm.js";
import { SymvirtError } from "../../src/errors.js";
import type {
  CaptureFacts,
  CaptureOptions,
  MigrateOptions,
  MigrationProgress,
  VmDriver,
  VmFacts,
} from "../../src/vmm/driver.js";
import { type HostResult, runOnHost } from "../../src/vmm/qemu/run-on-host.js";
import { FakeGuest } from "./fake-guest.js";

export type FakeOp =
  | "inspect"
  | "openChannel"
  | "detach"
  | "attach"
  | "migrate"
  | "listen"
  | "resume"
  | "quit"
  | "setLinks"
  | "hold"
  | "capture"
  | "abandonCapture"
  | "restore"
  | "findProcesses"
  | "launch"
  | "end"
  | "checkHost"
  | "freeMemory"
  | "presence"
  | "kill";

/** Throws to fail the op, waits to delay it; `where` is "vm@host". */
export type Fault = (op: FakeOp, where: string, signal: AbortSignal) => void | Promise<void>;

/** These change nothing and are not written down. */
const asks: ReadonlySet<FakeOp> = new Set([
  "inspect",
  "openChannel",
  "checkHost",
  "findProcesses",
  "freeMemory",
  "presence",
]);

interface Process {
  status: string;
  cards: Map<string, Card>;
  moved: boolean;
  channel: Duplex | undefined;
  /** The wires of its NICs; absent: joined. */
  linksUp?: boolean;
}

/** Waits until the signal aborts, then throws its reason. */
export async function hang(signal: AbortSignal): Promise<never> {
  await sleep(60_000, undefined, { signal }).catch(() => undefined);
  throw signal.reason;
}

const mac = (host: string, card: string) => `52:54:00:00:0${host.slice(1)}:0${card.slice(-1)}`;

export class FakeCluster implements Vmm {
  readonly cluster: Cluster;
  readonly folder = mkdtempSync(join(tmpdir(), "symvirt-test-"));
  readonly guests = new Map<string, FakeGuest>();
  readonly processes = new Map<string, Process>();
  readonly calls: string[] = [];
  fault: Fault = () => undefined;
  /** Cards whose port never comes up. */
  deadPorts = new Set<string>();
  blockers: string[] = [];
  /** What the VMs' disks hold; they are real files in `folder`. */
  readonly diskOf = (vm: string): string => join(this.folder, `${vm}.raw`);
  /** Free bytes of a host; 8 GiB where nothing is said. */
  readonly memory = new Map<string, number>();
  /** Pre-copy of this VM does not end before this is true; looked at every few milliseconds. */
  converges: () => boolean = () => true;
  /** What is seen of a pre-copy that goes on, in bytes a second. */
  rates = { dirtyBytesPerSecond: 0, sentBytesPerSecond: 1e8 };

  /** vm1 on h1, vm2 on h2, … or as `homes` says; one more host is spare. Every host offers `cardsPerHost` cards. */
  constructor(
    options: {
      vms?: number;
      ranksPerVm?: number;
      deadlines?: Record<string, number>;
      strategy?: Strategy;
      limits?: Record<string, unknown>;
      cardsPerHost?: number;
      homes?: readonly string[];
      policy?: Record<string, unknown>;
    } = {},
  ) {
    const { vms = 2, ranksPerVm = 2, strategy = "park", cardsPerHost = 1 } = options;
    const homes = options.homes ?? Array.from({ length: vms }, (_, i) => `h${i + 1}`);
    const cardOf = (i: number) => `card${homes.slice(0, i - 1).filter((h) => h === homes[i - 1]).length}`;
    const cardNames = Array.from({ length: cardsPerHost }, (_, i) => `card${i}`);
    const hosts: Record<string, unknown> = {};
    for (let i = 1; i <= vms + 1; i++)
      hosts[`h${i}`] = {
        address: `10.0.0.${i}`,
        runtime: `/run/fake/h${i}`,
        cards: Object.fromEntries(
          cardNames.map((c) => [c, { driver: "e1000e", identity: { mac: mac(`h${i}`, c) } }]),
        ),
      };
    const entries: Record<string, unknown> = {};
    for (let i = 1; i <= vms; i++)
      entries[`vm${i}`] = {
        host: homes[i - 1],
        command: ["qemu", "-name", "{vm}", "-pidfile", "{runtime}/{vm}.pid"],
        cards: { hca0: { bus: "rp0", card: cardOf(i) } },
      };
    const short = {
      hold: 1500,
      hello: 1500,
      prepare: 1500,
      park: 1500,
      detach: 1500,
      migrate: 1500,
      attach: 1500,
      linkUp: 1500,
    };
    this.cluster = clusterFile.parse({
      version: 1,
      name: "fake",
      state: join(this.folder, "state"),
      hosts,
      vms: entries,
      checkpoints: { path: join(this.folder, "store") },
      limits: { strategy, ...options.limits },
      ...(options.policy === undefined ? {} : { policy: options.policy }),
      deadlines: { ...short, resume: 1500, ...options.deadlines },
    });
    for (let i = 1; i <= vms; i++) {
      const guest = new FakeGuest(`vm${i}`);
      writeFileSync(this.diskOf(`vm${i}`), `first disk of vm${i}`);
      this.guests.set(`vm${i}`, guest);
      const card = this.cluster.hosts[homes[i - 1] ?? ""]?.cards[cardOf(i)] as Card;
      this.processes.set(`vm${i}@${homes[i - 1]}`, {
        status: "running",
        cards: new Map([["hca0", card]]),
        moved: false,
        channel: undefined,
      });
      guest.card(card.identity.mac ?? "", "ACTIVE");
      for (let r = 0; r < ranksPerVm; r++) guest.addRank("job.1", vms * ranksPerVm, (i - 1) * ranksPerVm + r);
    }
  }

  guest(vm: string): FakeGuest {
    return this.guests.get(vm) as FakeGuest;
  }

  /** The host on which the VM runs; fails if it runs nowhere or twice. */
  runsOn(vm: string): string {
    const hosts = [...this.processes].filter(([k, p]) => k.startsWith(`${vm}@`) && p.status === "running");
    if (hosts.length !== 1) throw new Error(`${vm} runs on ${hosts.length} hosts`);
    return (hosts[0]?.[0] ?? "").split("@")[1] ?? "";
  }

  cardsOf(vm: string): string[] {
    return [...(this.processes.get(`${vm}@${this.runsOn(vm)}`)?.cards.keys() ?? [])];
  }

  dispose(): void {
    for (const guest of this.guests.values()) guest.drop();
    rmSync(this.folder, { recursive: true, force: true });
  }

  driver(vm: string, host: string): VmDriver {
    return new FakeDriver(this, vm, host);
  }

  async launchIncoming(vm: string, host: string, signal: AbortSignal): Promise<void> {
    await this.call("launch", vm, host, signal);
    this.processes.set(`${vm}@${host}`, {
      status: "inmigrate",
      cards: new Map(),
      moved: false,
      channel: undefined,
    });
  }

  async end(vm: string, host: string, signal: AbortSignal): Promise<void> {
    await this.call("end", vm, host, signal);
    this.processes.get(`${vm}@${host}`)?.channel?.destroy();
    this.processes.delete(`${vm}@${host}`);
  }

  async checkHost(vm: string, host: string, _machine: string, signal: AbortSignal): Promise<void> {
    await this.call("checkHost", vm, host, signal);
    if (this.processes.has(`${vm}@${host}`))
      throw new SymvirtError("refused", `host ${host} already runs ${vm}`);
  }

  command(vm: string, host: string): string[] {
    return ["qemu", "-name", vm, "-pidfile", `/run/fake/${host}/${vm}.pid`];
  }

  async findProcesses(vm: string, host: string, signal: AbortSignal): Promise<number[]> {
    await this.call("findProcesses", vm, host, signal);
    return this.processes.has(`${vm}@${host}`) ? [4711] : [];
  }

  /** Scripts really run, on this machine: they touch files in `folder` only. */
  async run(_host: string, script: string, signal: AbortSignal): Promise<HostResult> {
    return await runOnHost([], script, signal);
  }

  /** The machines lose their power: no VMM is left. */
  killAll(): void {
    for (const process of this.processes.values()) process.channel?.destroy();
    this.processes.clear();
  }

  async freeMemory(host: string, signal: AbortSignal): Promise<number> {
    await this.call("freeMemory", "", host, signal);
    return this.memory.get(host) ?? 8 * 2 ** 30;
  }

  async presence(host: string, vms: readonly string[], signal: AbortSignal): Promise<Map<string, boolean>> {
    await this.call("presence", "", host, signal);
    return new Map(vms.map((vm) => [vm, this.processes.has(`${vm}@${host}`)]));
  }

  async kill(host: string, vms: readonly string[], signal: AbortSignal): Promise<void> {
    await this.call("kill", vms.join(","), host, signal);
    for (const vm of vms) this.die(vm, host);
  }

  /** The VM's process ends, and with it the guest. */
  die(vm: string, host: string): void {
    this.processes.get(`${vm}@${host}`)?.channel?.destroy();
    if (this.processes.delete(`${vm}@${host}`)) this.guest(vm).drop();
  }

  async call(op: FakeOp, vm: string, host: string, signal: AbortSignal): Promise<void> {
    if (!asks.has(op)) this.calls.push(`${op} ${vm}@${host}`);
    signal.throwIfAborted();
    await this.fault(op, `${vm}@${host}`, signal);
    await sleep(1);
  }
}

/** What a shell command makes of `input`; rejects with its last words. */
function throughShell(command: string, input: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn("sh", ["-c", command], { stdio: ["pipe", "pipe", "pipe"] });
    let [out, words] = ["", ""];
    child.stdout.setEncoding("utf8").on("data", (text: string) => (out += text));
    child.stderr.setEncoding("utf8").on("data", (text: string) => (words += text));
    child.once("error", reject);
    child.once("close", (code) =>
      code === 0 ? resolve(out) : reject(new SymvirtError("rolledBack", words.trim())),
    );
    child.stdin.end(input);
  });
}

class FakeDriver implements VmDriver {
  readonly vm: string;
  readonly host: string;
  readonly #world: FakeCluster;

  constructor(world: FakeCluster, vm: string, host: string) {
    this.#world = world;
    this.vm = vm;
    this.host = host;
  }

  get #process(): Process {
    const found = this.#world.processes.get(`${this.vm}@${this.host}`);
    if (found === undefined)
      throw new SymvirtError("unreachable", `QMP of ${this.vm} on ${this.host} does not answer (ENOENT)`);
    return found;
  }

  async inspect(signal: AbortSignal): Promise<VmFacts> {
    await this.#world.call("inspect", this.vm, this.host, signal);
    const { status, cards } = this.#process;
    return {
      status,
      machine: "pc-q35-7.2",
      cards: [...cards.keys()],
      blockers: this.#world.blockers,
      vmmVersion: "7.2.0",
      memoryBytes: 1 << 30,
      migration: "none",
    };
  }

  async openChannel(signal: AbortSignal): Promise<Duplex> {
    await this.#world.call("openChannel", this.vm, this.host, signal);
    const process = this.#process;
    const [ours, theirs] = duplexPair();
    process.channel?.destroy();
    process.channel = ours;
    if (process.status === "running") this.#world.guest(this.vm).serve(theirs);
    return ours;
  }

  async detach(tag: string, signal: AbortSignal): Promise<void> {
    await this.#world.call("detach", this.vm, this.host, signal);
    const card = this.#process.cards.get(tag);
    this.#process.cards.delete(tag);
    if (card !== undefined) this.#world.guest(this.vm).card(card.identity.mac ?? "", "gone");
  }

  async attach(tag: string, _bus: string, card: Card, signal: AbortSignal): Promise<void> {
    await this.#world.call("attach", this.vm, this.host, signal);
    if (this.#process.cards.has(tag)) return;
    this.#process.cards.set(tag, card);
    const key = card.identity.mac ?? "";
    const guest = this.#world.guest(this.vm);
    guest.card(key, "DOWN");
    setTimeout(() => guest.card(key, this.#world.deadPorts.has(key) ? "DOWN" : "ACTIVE"), 5);
  }

  async migrate(options: MigrateOptions): Promise<MigrationProgress> {
    const to = options.uri.slice("fake:".length);
    const progress = {
      status: "active",
      transferred: 1,
      remaining: 1,
      total: 2,
      ...{ dirtyBytesPerSecond: 0, sentBytesPerSecond: 1e8 },
    };
    options.onProgress?.(progress);
    await this.#world.call("migrate", this.vm, this.host, options.signal);
    while (!this.#world.converges()) {
      await sleep(2, undefined, { signal: options.signal }).catch(() => options.signal.throwIfAborted());
      options.onProgress?.({ ...progress, ...this.#world.rates });
    }
    const source = this.#process;
    const destination = this.#world.processes.get(`${this.vm}@${to}`);
    if (destination === undefined) throw new SymvirtError("unreachable", `nobody listens on ${options.uri}`);
    source.status = "postmigrate";
    source.moved = true;
    destination.status = "paused";
    return {
      ...progress,
      status: "completed",
      remaining: 0,
      transferred: 2 << 20,
      downtimeMs: 12,
      totalMs: 20,
    };
  }

  async cancelMigration(_signal: AbortSignal): Promise<"runs-here" | "moved"> {
    const process = this.#process;
    if (process.moved) return "moved";
    process.status = "running";
    return "runs-here";
  }

  async listen(signal: AbortSignal): Promise<string> {
    await this.#world.call("listen", this.vm, this.host, signal);
    return `fake:${this.host}`;
  }

  async resume(signal: AbortSignal, options?: { evenIfMoved?: boolean }): Promise<void> {
    await this.#world.call("resume", this.vm, this.host, signal);
    const process = this.#process;
    if (process.moved && options?.evenIfMoved !== true) throw new SymvirtError("refused", "has moved away");
    process.status = "running";
    process.moved = false;
    process.channel?.destroy();
  }

  async pause(_signal: AbortSignal): Promise<void> {
    this.#process.status = "paused";
  }

  async nics(): Promise<string[]> {
    return ["management"];
  }

  async setLinks(nics: readonly string[], up: boolean, signal: AbortSignal): Promise<void> {
    if (nics.length === 0) throw new Error("no NIC was named");
    await this.#world.call("setLinks", this.vm, this.host, signal);
    this.#world.calls.push(`links ${up ? "up" : "down"} ${this.vm}`);
    this.#process.linksUp = up;
  }

  async announce(): Promise<void> {
    this.#world.calls.push(`announce ${this.vm}`);
  }

  async captureFacts(_signal: AbortSignal): Promise<CaptureFacts> {
    const image = this.#world.diskOf(this.vm);
    return { method: "background-snapshot", disks: [{ drive: "root", image, format: "raw", usedBytes: 20 }] };
  }

  /** Memory is what the guest's ranks are; it goes through the real sink. */
  async capture({ sink, disks, onReady, go, onTaken, signal }: CaptureOptions): Promise<void> {
    await this.#world.call("hold", this.vm, this.host, signal);
    onReady();
    // Another VM's fault may have aborted it already.
    await Promise.race([go, hang(signal)]);
    await this.#world.call("capture", this.vm, this.host, signal);
    const memory = JSON.stringify(this.#world.guest(this.vm).snapshot());
    for (const { image, copy } of disks) await this.#world.run(this.host, `cp ${image} ${copy}`, signal);
    this.#world.calls.push(`taken ${this.vm}`);
    onTaken(1);
    await throughShell(sink, memory);
    signal.throwIfAborted();
  }

  async abandonCapture(_gate: string, signal: AbortSignal): Promise<void> {
    await this.#world.call("abandonCapture", this.vm, this.host, signal);
    this.#process.status = "running";
  }

  async restore(source: string, signal: AbortSignal): Promise<void> {
    await this.#world.call("restore", this.vm, this.host, signal);
    const memory = await throughShell(source, "");
    this.#world.guest(this.vm).load(JSON.parse(memory));
    Object.assign(this.#process, { status: "paused", linksUp: false });
  }

  async quit(signal: AbortSignal): Promise<void> {
    this.#world.calls.push(`quit ${this.vm}@${this.host}`);
    await this.#world.fault("quit", `${this.vm}@${this.host}`, signal);
    this.#world.processes.get(`${this.vm}@${this.host}`)?.channel?.destroy();
    this.#world.processes.delete(`${this.vm}@${this.host}`);
  }

  async close(): Promise<void> {}

  async end(): Promise<void> {}
}
