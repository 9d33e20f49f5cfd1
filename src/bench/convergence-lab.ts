/** The world of `convergence` for real: a lab of two VMs with one rank each, and a controller. */
import { setTimeout as delay } from "node:timers/promises";
import type { MigrationLimits } from "../controller/limits.js";
import { SymvirtError } from "../errors.js";
import { Controller } from "../index.js";
import { labDown, labUp, type OpenLab } from "../lab/index.js";
import { anySignal } from "../signals.js";
import type { BenchJob } from "./blackout-world.js";
import type { ConvergenceLoad } from "./convergence.js";
import type { ConvergenceLab, ConvergenceWorld, Move, Way } from "./convergence-world.js";
import { startLabJob } from "./lab-job.js";

/** Moves: rank 0, whose clock measures, is in vm1, and a guest's clock stands still in its own downtime. */
const MOVED = "vm2";
const HOME = "h2";
const SPARE = "h3";
const VMS = ["vm1", "vm2"] as const;

class LabUnderLoad implements ConvergenceLab {
  readonly accelerator: "kvm" | "tcg";
  readonly #lab: OpenLab;
  readonly #controller: Controller;
  readonly #name: string;
  readonly #load: ConvergenceLoad;
  readonly #signal: AbortSignal;
  readonly #say: (line: string) => void;
  #at = HOME;

  constructor(parts: {
    lab: OpenLab;
    controller: Controller;
    accelerator: "kvm" | "tcg";
    name: string;
    load: ConvergenceLoad;
    signal: AbortSignal;
    say: (line: string) => void;
  }) {
    this.accelerator = parts.accelerator;
    this.#lab = parts.lab;
    this.#controller = parts.controller;
    this.#name = parts.name;
    this.#load = parts.load;
    this.#signal = parts.signal;
    this.#say = parts.say;
  }

  async startJob(): Promise<BenchJob> {
    const [lab, controller, signal] = [this.#lab, this.#controller, this.#signal];
    const args = ["--megabytes", String(this.#load.megabytes)];
    return await startLabJob({ lab, controller, vms: VMS, program: "dirty", args, signal });
  }

  async move(way: Way, capMs: number): Promise<Move> {
    const to = this.#at === HOME ? SPARE : HOME;
    const { bandwidthBytesPerSecond, parkAfterMs } = this.#load;
    const limits: MigrationLimits = {
      bandwidthBytesPerSecond,
      ...(way === "cooperative" ? { parkAfterMs } : { parkAfterMs: "never", autoConverge: true }),
    };
    const cap = AbortSignal.timeout(capMs);
    const signal = anySignal([this.#signal, cap]);
    const report = await this.#controller.migrate({ vm: MOVED, to, strategy: "live", limits, signal });
    this.#signal.throwIfAborted();
    const { outcome, strategy, holds, totalMs } = report;
    if (strategy !== "live")
      throw new SymvirtError("internal", `The job was moved by strategy ${strategy}, not live`);
    if (outcome === "done") this.#at = to;
    else if (outcome !== "rolled-back" || !cap.aborted)
      throw new SymvirtError("internal", `The cycle (${way}) was not done: ${report.message}`);
    // Memory that changed too slowly would say nothing of either way.
    if (way === "cooperative" && outcome === "done" && holds.length !== 1)
      throw new SymvirtError("internal", "Pre-copy ended before the ranks were held: the load is too small", {
        hint: "give the ranks more --megabytes, or less --bandwidth",
      });
    for (const { heldMs, orderedMs, goneOnMs } of holds)
      this.#say(`  held after ${orderedMs} ms, all at ${heldMs} ms, until ${goneOnMs} ms`);
    const startMs = Date.parse(report.startedAt);
    return { startMs, endMs: startMs + totalMs, completed: outcome === "done" };
  }

  async close(): Promise<void> {
    await this.#controller.close();
    await labDown({ name: this.#name, say: this.#say });
  }
}

/** A lab on this machine. */
export function convergenceLab(
  name: string,
  load: ConvergenceLoad,
  say: (line: string) => void,
  signal: AbortSignal,
): ConvergenceWorld {
  return {
    say,
    wait: async (ms) => {
      await delay(ms, undefined, { signal });
    },
    open: async () => {
      const up = await labUp({ name, vms: VMS.length, hosts: 3, ranks: 1, say, signal });
      try {
        const controller = await Controller.open(up.lab.path);
        return new LabUnderLoad({
          ...{ lab: up.lab, accelerator: up.accelerator, controller, name, load, signal, say },
        });
      } catch (failure) {
        await labDown({ name });
        throw failure;
      }
    },
  };
}
