/** The work of a checkpoint on all VMs: the cut, the captures, and what is written of them. */
import { join } from "node:path";
import type { CapturedJob, CapturedVm, Part } from "../../checkpoint/manifest.js";
import { partResult } from "../../checkpoint/part-result.js";
import { partWriteCommand } from "../../checkpoint/part-write.js";
import type { PendingCheckpoint } from "../../checkpoint/pending.js";
import { SymvirtError } from "../../errors.js";
import { pause } from "../../vmm/deadline.js";
import { abortError } from "../../vmm/deadline.js";
import type { CaptureFacts, CaptureMethod, VmFacts } from "../../vmm/driver.js";
import type { Fleet } from "../fleet.js";
import type { CycleTarget } from "../state/journal.js";
import type { SetOp } from "./set-cycle.js";
import { AllVms, cardsOf, type SetOps, type SetVm } from "./set-ops.js";

const POLL_MS = 50;

/** What is known of each VM before anything is touched. */
export type CapturePlan = ReadonlyMap<string, { facts: VmFacts; capture: CaptureFacts }>;

export interface CheckpointContext {
  fleet: Fleet;
  target: CycleTarget;
  vms: readonly SetVm[];
  plan: CapturePlan;
  /** Of all VMs, so that they are stopped alike. */
  method: CaptureMethod;
  /** Undefined for a controller that takes over: it captures nothing. */
  pending: PendingCheckpoint | undefined;
  level: number;
}

interface DiskPlace {
  disk: CaptureFacts["disks"][number];
  file: string;
  path: string;
}

/** How far one capture is, and when it may go on. */
interface Steps {
  onReady: () => void;
  go: Promise<void>;
  isTaken: () => void;
}

const ramOf = ({ vm }: SetVm): string => `${vm}.ram.zst`;

export class CheckpointOps implements SetOps {
  readonly #context: CheckpointContext;
  readonly #all: AllVms;
  readonly #pauses = new Map<string, number>();
  readonly #rams = new Map<string, Part>();
  readonly #disks = new Map<string, DiskPlace[]>();
  #capturing: AbortController | undefined;
  #captures: Promise<void> = Promise.resolve();
  #go: () => void = () => undefined;
  readonly #nics = new Map<string, string[]>();
  readonly #joined: Promise<void>[] = [];
  #withoutNetworkMs = 0;

  constructor(context: CheckpointContext) {
    this.#context = context;
    this.#all = new AllVms(context.fleet, context.vms);
  }

  /** Milliseconds each VM did not run, and in which none reached another. */
  get times(): { pauses: ReadonlyMap<string, number>; withoutNetworkMs: number } {
    return { pauses: this.#pauses, withoutNetworkMs: this.#withoutNetworkMs };
  }

  async run(op: SetOp, signal: AbortSignal): Promise<void> {
    switch (op) {
      case "detach":
        return await this.#all.each(async (vm) => {
          for (const { tag } of vm.cards) await this.#all.driver(vm).detach(tag, signal);
        });
      case "hold":
        return await this.#hold(signal);
      case "cut":
        return await this.#cut(signal);
      case "save":
        return await this.#untilSaved(signal);
      case "keep":
        return await this.#keep(signal);
      case "attach":
        return await this.#all.attach(signal);
      case "release":
        return await this.#release(signal);
      case "load":
      case "resume":
      case "join":
      case "place":
      case "end":
        throw new Error(`${op} is no work of a checkpoint`);
    }
  }

  /** Does all that can be done before the wires are cut: what takes as long as the memory is large is among it. */
  async #hold(signal: AbortSignal): Promise<void> {
    await this.#all.each(async (vm) => {
      this.#nics.set(vm.vm, await this.#all.driver(vm).nics(signal));
    });
    const capturing = new AbortController();
    this.#capturing = capturing;
    const go = new Promise<void>((resolve) => (this.#go = resolve));
    const ready: Promise<void>[] = [];
    const ends = this.#context.vms.map((vm) => {
      let isReady: () => void = () => undefined;
      let isTaken: () => void = () => undefined;
      ready.push(new Promise((resolve) => (isReady = resolve)));
      const taken = new Promise<void>((resolve) => (isTaken = resolve));
      this.#joined.push(taken.then(() => this.#setLinks(vm, true, capturing.signal)));
      const end = this.#captureOne(vm, { onReady: isReady, go, isTaken, signal: capturing.signal });
      // One that fails ends the others: the set is whole or nothing.
      end.catch((error: unknown) => capturing.abort(error));
      return end;
    });
    this.#captures = Promise.allSettled(ends).then((all) => {
      const failed = all.filter((end) => end.status === "rejected").map((end): unknown => end.reason);
      // The first cause, not what it did to the others.
      if (failed.length > 0) throw failed.find((e) => e === capturing.signal.reason) ?? failed[0];
    });
    this.#captures.catch(() => undefined);
    await this.#obeying(signal, Promise.race([Promise.all(ready), this.#captures]));
  }

  /**
   * Cuts all wires, lets all captures go, and joins the wires of each VM when its own instant has passed (why not later:
   * docs/checkpoint.md). What is left to write goes on behind it.
   */
  async #cut(signal: AbortSignal): Promise<void> {
    const cutAt = performance.now();
    // Once it is given up nothing has to be of one instant: no VM waits without a network for what is left of it.
    this.#capturing?.signal.addEventListener("abort", () => void this.#joinAll(), { once: true });
    await this.#all.each((vm) => this.#setLinks(vm, false, signal));
    this.#go();
    const joined = Promise.all(this.#joined);
    await this.#obeying(signal, Promise.race([joined, this.#captures.then(() => joined)]));
    this.#withoutNetworkMs = performance.now() - cutAt;
  }

  /** What fails is done again, and told, by "release". */
  async #joinAll(): Promise<void> {
    const signal = AbortSignal.timeout(this.#context.fleet.cluster.deadlines.attach);
    await Promise.allSettled(this.#context.vms.map((vm) => this.#setLinks(vm, true, signal)));
  }

  async #setLinks(vm: SetVm, up: boolean, signal: AbortSignal): Promise<void> {
    await this.#all.driver(vm).setLinks(this.#nics.get(vm.vm) ?? [], up, signal);
  }

  async #captureOne(
    vm: SetVm,
    { onReady, go, isTaken, signal }: Steps & { signal: AbortSignal },
  ): Promise<void> {
    const { level, plan, method } = this.#context;
    const pending = this.#pending;
    const { disks = [] } = plan.get(vm.vm)?.capture ?? {};
    const ram = pending.place(ramOf(vm));
    const places = disks.map((disk, i) => ({ disk, ...pending.place(`${vm.vm}.disk${i}.${disk.format}`) }));
    this.#disks.set(vm.vm, places);
    await this.#all.driver(vm).capture({
      method,
      sink: partWriteCommand({ path: ram.path, encoding: "zstd", level }),
      disks: places.map(({ disk, path }) => ({ ...disk, copy: path })),
      ...{ gate: this.#gateOf(vm), onReady, go },
      onTaken: (pauseMs) => {
        this.#pauses.set(vm.vm, pauseMs);
        isTaken();
      },
      signal,
    });
    for (;;) {
      const part = partResult(ram.path, "zstd");
      if (part?.rawBytes === 0)
        throw new SymvirtError(
          "rolledBack",
          `the memory of ${vm.vm} was not kept: what reads it was too late`,
        );
      if (part !== undefined) {
        this.#rams.set(vm.vm, part);
        return;
      }
      await pause(POLL_MS, signal);
      if (signal.aborted) throw abortError(signal, `writing of ${ram.file}`);
    }
  }

  async #untilSaved(signal: AbortSignal): Promise<void> {
    await this.#obeying(signal, this.#captures);
  }

  /** Waits for the captures; an abort is theirs, and is over when they have ended. */
  async #obeying(signal: AbortSignal, work: Promise<unknown>): Promise<void> {
    const onAbort = () => this.#capturing?.abort(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    if (signal.aborted) onAbort();
    try {
      await work;
      if (signal.aborted) await this.#captures;
    } catch (error) {
      await this.#captures.catch(() => undefined);
      throw error;
    } finally {
      signal.removeEventListener("abort", onAbort);
    }
  }

  async #keep(signal: AbortSignal): Promise<void> {
    const { target, fleet, plan, method } = this.#context;
    const pending = this.#pending;
    const vms: CapturedVm[] = [];
    for (const vm of this.#context.vms) {
      const known = plan.get(vm.vm);
      const ram = this.#rams.get(vm.vm);
      if (known === undefined || ram === undefined) throw new Error(`${vm.vm} has not been captured`);
      const disks: CapturedVm["disks"] = [];
      for (const { disk, file } of this.#disks.get(vm.vm) ?? []) {
        const part = await pending.seal(file, signal);
        const { drive, image, format, backing } = disk;
        const kept =
          backing === undefined
            ? ({ kind: "copy", part } as const)
            : ({ kind: "overlay", part, backing } as const);
        disks.push({ drive, image, format, kept });
      }
      const { vmmVersion, machine, memoryBytes } = known.facts;
      vms.push({
        ...{ vm: vm.vm, host: vm.host, argv: fleet.vmm.command(vm.vm, vm.host), qemu: vmmVersion, machine },
        ...{ memoryBytes, pauseMs: this.#pauses.get(vm.vm) ?? 0, ram, disks },
        cards: cardsOf(fleet, vm).map(({ tag, bus, name, card }) => ({
          ...{ tag, bus, card: name, driver: card.driver },
          identity: {
            ...(card.identity.mac === undefined ? {} : { mac: card.identity.mac }),
            ...(card.identity.guid === undefined ? {} : { guid: card.identity.guid }),
          },
        })),
      });
    }
    const jobs: CapturedJob[] = target.jobs.map(({ job, worldSize, ranks }) => ({
      ...{ job, worldSize },
      ranks: ranks.map(({ rank, vm, epoch }) => ({ rank, vm, epoch })),
    }));
    signal.throwIfAborted();
    pending.commit({
      cycle: target.cycle,
      cut: { method: "links-down", capture: method, withoutNetworkMs: this.#withoutNetworkMs },
      vms,
      jobs,
    });
  }

  /** A connection that is lost says little: a VM whose process has ended does not come back by itself. */
  async #failIfDead({ vm, host }: SetVm, signal: AbortSignal): Promise<void> {
    const there = await this.#context.fleet.vmm.presence(host, [vm], signal).catch(() => undefined);
    if (there?.get(vm) === false)
      throw new SymvirtError("needsOperator", `${vm} no longer runs on ${host}`, {
        hint: "see the VMM's log for why",
      });
  }

  /** The same for a controller that takes over. */
  #gateOf(vm: SetVm): string {
    const { fleet, target } = this.#context;
    return join(fleet.cluster.checkpoints?.path ?? "", target.set?.checkpoint ?? "", `${ramOf(vm)}.gate`);
  }

  get #pending(): PendingCheckpoint {
    if (this.#context.pending === undefined) throw new Error("no checkpoint is being written");
    return this.#context.pending;
  }

  /** Nothing of a capture goes on, every VM runs, and the wires are joined. */
  async #release(signal: AbortSignal): Promise<void> {
    this.#capturing?.abort(new SymvirtError("interrupted", "the checkpoint is given up"));
    await this.#all.each(async (vm) => {
      try {
        // First, for the end of a capture may be minutes away.
        await this.#all.join(vm, signal);
        await this.#captures.catch(() => undefined);
        await this.#all.driver(vm).abandonCapture(this.#gateOf(vm), signal);
        // A VM that stood still did not say where it is.
        await this.#all.driver(vm).announce(signal);
      } catch (error) {
        await this.#failIfDead(vm, signal);
        throw error;
      }
    });
  }
}
