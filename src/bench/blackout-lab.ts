/** The bench's world for real: labs of two VMs with one rank each, and a controller. */
import { setTimeout as delay } from "node:timers/promises";
import { SymvirtError } from "../errors.js";
import { Controller } from "../index.js";
import { labDown, labUp, type OpenLab } from "../lab/index.js";
import type { BenchJob, BenchLab, BenchWorld, CycleTimes } from "./blackout-world.js";
import { fillMemory } from "./fill-memory.js";
import { inGuest, startLabJob } from "./lab-job.js";

/** Moves: rank 0, whose clock measures, is in vm1, and a guest's clock stands still in its own downtime. */
const MOVED = "vm2";
const HOME = "h2";
const SPARE = "h3";
const VMS = ["vm1", "vm2"] as const;
class LabUnderBench implements BenchLab {
  readonly accelerator: "kvm" | "tcg";
  readonly #lab: OpenLab;
  readonly #controller: Controller;
  readonly #name: string;
  readonly #signal: AbortSignal;
  readonly #say: (line: string) => void;
  #at = HOME;

  constructor(parts: {
    lab: OpenLab;
    controller: Controller;
    accelerator: "kvm" | "tcg";
    name: string;
    signal: AbortSignal;
    say: (line: string) => void;
  }) {
    this.accelerator = parts.accelerator;
    this.#lab = parts.lab;
    this.#controller = parts.controller;
    this.#name = parts.name;
    this.#signal = parts.signal;
    this.#say = parts.say;
  }

  async startJob(): Promise<BenchJob> {
    const [lab, controller, signal] = [this.#lab, this.#controller, this.#signal];
    return await startLabJob({ lab, controller, vms: VMS, program: "stencil", signal });
  }

  async cycle(strategy: "live" | "park"): Promise<CycleTimes> {
    const to = this.#at === HOME ? SPARE : HOME;
    const report = await this.#controller.migrate({ vm: MOVED, to, strategy, signal: this.#signal });
    if (report.outcome !== "done" || report.preCopy === null)
      throw new SymvirtError("internal", `The cycle (${strategy}) was not done: ${report.message}`);
    this.#at = to;
    this.#say(
      `  ${strategy} cycle to ${to}: ${(report.totalMs / 1000).toFixed(1)} s, downtime ${report.preCopy.downtimeMs} ms`,
    );
    const startMs = Date.parse(report.startedAt);
    return {
      startMs,
      endMs: startMs + report.totalMs,
      strategy: report.strategy,
      downtimeMs: report.preCopy.downtimeMs,
    };
  }

  async delayLinkUp(seconds: number): Promise<void> {
    const file = "/run/symvirt/hook-delay";
    await inGuest(this.#lab, MOVED, seconds > 0 ? `echo ${seconds} >${file}` : `rm -f ${file}`, this.#signal);
  }

  async close(): Promise<void> {
    await this.#controller.close();
    await labDown({ name: this.#name, say: this.#say });
  }
}

/** Labs on this machine, one at a time. */
export function labWorld(name: string, say: (line: string) => void, signal: AbortSignal): BenchWorld {
  return {
    say,
    wait: async (ms) => {
      await delay(ms, undefined, { signal });
    },
    open: async (memoryMiB) => {
      const up = await labUp({ name, vms: VMS.length, hosts: 3, ranks: 1, memoryMiB, say, signal });
      try {
        await fillMemory(up.lab, MOVED, memoryMiB, say, signal);
        const controller = await Controller.open(up.lab.path);
        return new LabUnderBench({ lab: up.lab, accelerator: up.accelerator, controller, name, signal, say });
      } catch (failure) {
        await labDown({ name });
        throw failure;
      }
    },
  };
}
