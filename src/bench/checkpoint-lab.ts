/** The world of `checkpoint` for real: a lab of two VMs with one rank each, and a controller. */
import { setTimeout as delay } from "node:timers/promises";
import { CheckpointStore } from "../checkpoint/store.js";
import { SymvirtError } from "../errors.js";
import { Controller, type SetReport } from "../index.js";
import { labDown, labUp, type OpenLab } from "../lab/index.js";
import { Testbed } from "../testbed/testbed.js";
import type { CaptureMethod } from "../vmm/driver.js";
import type { BenchJob } from "./blackout-world.js";
import type { Captured, CheckpointLab, CheckpointWorld } from "./checkpoint-world.js";
import { fillMemory } from "./fill-memory.js";
import { startLabJob } from "./lab-job.js";
import { saveSnapshot } from "./snapshot-save.js";

const VMS = ["vm1", "vm2"] as const;
/** One is enough: what is captured of the other is then what an idle guest costs. */
const FILLED = "vm2";

class LabUnderCheckpoints implements CheckpointLab {
  readonly accelerator: "kvm" | "tcg";
  readonly #bed: Testbed;
  readonly #name: string;
  readonly #signal: AbortSignal;

  constructor(parts: {
    accelerator: "kvm" | "tcg";
    lab: OpenLab;
    controller: Controller;
    name: string;
    signal: AbortSignal;
    say: (line: string) => void;
  }) {
    const { accelerator, lab, controller, name, signal, say } = parts;
    this.accelerator = accelerator;
    this.#bed = new Testbed({ name, vms: VMS.length, hosts: 3, ranksPerVm: 1 }, lab, controller, say);
    this.#name = name;
    this.#signal = signal;
  }

  async startJob(): Promise<BenchJob> {
    const { lab, controller } = this.#bed;
    return await startLabJob({ lab, controller, vms: VMS, program: "stencil", signal: this.#signal });
  }

  async checkpoint(capture: CaptureMethod): Promise<Captured> {
    const report = await this.#take(capture);
    this.#store.remove(report.checkpoint);
    const startMs = Date.parse(report.startedAt);
    return {
      ...{ startMs, endMs: startMs + report.totalMs },
      pausesMs: report.vms.map(({ vm, pauseMs }) => known(pauseMs, `pause of ${vm}`)),
      withoutNetworkMs: known(report.withoutNetworkMs, "time without network"),
      bytes: known(report.bytes, "size of the checkpoint"),
    };
  }

  async snapshotSave(): Promise<number[]> {
    const pauses: number[] = [];
    for (const vm of VMS)
      pauses.push(await saveSnapshot(this.#bed.lab.cluster, vm, await this.#bed.hostOf(vm), this.#signal));
    return pauses;
  }

  async restart(): Promise<number> {
    const { checkpoint: id } = await this.#take("background-snapshot");
    await this.#bed.killVms(this.#signal);
    const report = await this.#bed.controller.restart({ id, signal: this.#signal });
    if (report.outcome !== "done")
      throw new SymvirtError("internal", `The restart was not done: ${report.message}`);
    this.#store.remove(id);
    return report.totalMs;
  }

  async close(): Promise<void> {
    await this.#bed.controller.close();
    await labDown({ name: this.#name, say: this.#bed.say });
  }

  async #take(capture: CaptureMethod): Promise<SetReport> {
    const report = await this.#bed.controller.checkpoint({ capture, signal: this.#signal });
    if (report.outcome !== "done")
      throw new SymvirtError("internal", `The checkpoint (${capture}) was not done: ${report.message}`);
    return report;
  }

  get #store(): CheckpointStore {
    return new CheckpointStore(this.#bed.lab.cluster);
  }
}

function known<T>(value: T | null, what: string): T {
  if (value === null) throw new SymvirtError("internal", `The checkpoint does not tell the ${what}`);
  return value;
}

/** Labs on this machine, one at a time. */
export function checkpointLabs(
  name: string,
  say: (line: string) => void,
  signal: AbortSignal,
): CheckpointWorld {
  return {
    say,
    wait: async (ms) => {
      await delay(ms, undefined, { signal });
    },
    open: async (memoryMiB) => {
      const up = await labUp({ name, vms: VMS.length, hosts: 3, ranks: 1, memoryMiB, say, signal });
      try {
        await fillMemory(up.lab, FILLED, memoryMiB, say, signal);
        const controller = await Controller.open(up.lab.path);
        return new LabUnderCheckpoints({
          ...{ lab: up.lab, accelerator: up.accelerator, controller, name, signal, say },
        });
      } catch (failure) {
        await labDown({ name });
        throw failure;
      }
    },
  };
}
