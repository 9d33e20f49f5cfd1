/** The work of a checkpoint on all VMs: the cut, the captures, and what is written of them. */
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

export class CheckpointOps implements SetOps {
  readonly #context: CheckpointContext;
  readonly #all: AllVms;
  readonly #pauses = new Map<string, number>();
  readonly #rams = new Map<string, Part>();
  readonly #disks = new Map<string, DiskPlace[]>();
  #capturing: AbortController | undefined;
  #captures: Promise<void> = Promise.resolve();
  #go: () => void = () => undefined;
  readonly #taken: Promise<void>[] = [];
  #cutAt = 0;
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
      case "cut":
        await this.#prepare(signal);
        this.#cutAt = performance.now();
        return await this.#all.setLinks(false, signal);
      case "capture":
        return await this.#capture(signal);
      case "join":
        await this.#all.setLinks(true, signal);
        this.#withoutNetworkMs = performance.now() - this.#cutAt;
        return;
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
      case "place":
      case "end":
        throw new Error(`${op} is no work of a checkpoint`);
    }
  }

  /** Does all that can be done before the wires are cut: what takes as long as the memory is large is among it. */
  async #prepare(signal: AbortSignal): Promise<void> {
    const capturing = new AbortController();
    this.#capturing = capturing;
    const go = new Promise<void>((resolve) => (this.#go = resolve));
    const ready: Promise<void>[] = [];
    const ends = this.#context.vms.map((vm) => {
      let isReady: () => void = () => undefined;
      let isTaken: () => void = () => undefined;
      ready.push(new Promise((resolve) => (isReady = resolve)));
      this.#taken.push(new Promise((resolve) => (isTaken = resolve)));
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

  /** Lets all captures go; resolves when the instant of each has passed. What is left to write goes on behind it. */
  async #capture(signal: AbortSignal): Promise<void> {
    this.#go();
    await this.#obeying(signal, Promise.race([Promise.all(this.#taken), this.#captures]));
  }

  async #captureOne(
    vm: SetVm,
    { onReady, go, isTaken, signal }: Steps & { signal: AbortSignal },
  ): Promise<void> {
    const { level, plan, method } = this.#context;
    const pending = this.#pending;
    const { disks = [] } = plan.get(vm.vm)?.capture ?? {};
    const ram = pending.place(`${vm.vm}.ram.zst`);
    const places = disks.map((disk, i) => ({ disk, ...pending.place(`${vm.vm}.disk${i}.${disk.format}`) }));
    this.#disks.set(vm.vm, places);
    await this.#all.driver(vm).capture({
      method,
      sink: partWriteCommand({ path: ram.path, encoding: "zstd", level }),
      disks: places.map(({ disk, path }) => ({ ...disk, copy: path })),
      ...{ gate: `${ram.path}.gate`, onReady, go },
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

  get #pending(): PendingCheckpoint {
    if (this.#context.pending === undefined) throw new Error("no checkpoint is being written");
    return this.#context.pending;
  }

  /** Nothing of a capture goes on, every VM runs, and the wires are joined. */
  async #release(signal: AbortSignal): Promise<void> {
    this.#capturing?.abort(new SymvirtError("interrupted", "the checkpoint is given up"));
    await this.#captures.catch(() => undefined);
    await this.#all.each(async (vm) => {
      await this.#all.driver(vm).abandonCapture(signal);
      await this.#all.driver(vm).setLinks(true, signal);
    });
  }
}
