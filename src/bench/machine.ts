/** The machine the figures are of. */
import { cpus, loadavg, release } from "node:os";

export function describeMachine() {
  const all = cpus();
  return {
    date: new Date().toISOString(),
    cpus: all.length,
    cpuModel: all[0]?.model.trim() ?? "unknown",
    kernel: release(),
    loadAtStart: Number((loadavg()[0] ?? 0).toFixed(2)),
  };
}
