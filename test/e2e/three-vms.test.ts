/** End to end on three VMs with one rank each, and a spare host. */
import { describe, it } from "vitest";
import { perPeerCases } from "./cases/per-peer.js";
import { workloadCases } from "./cases/workloads.js";
import { expectNothingLeft, type LabShape, useLab, whyNoLab } from "./support/lab-fixture.js";
import { say } from "./support/progress.js";

const shape: LabShape = { name: "e2e-three", vms: 3, hosts: 4, ranksPerVm: 1 };
const why = whyNoLab();
if (why !== "") say(`three VMs: skipped, as ${why}`);

/**
 * Emulated guests whose processors are busy at the switch-over sometimes oops ("RIP 0x0", the process is
 * killed): seen once in nine live cycles under TCG. So the live runs are asked for.
 */
const live = process.env.SYMVIRT_E2E_LIVE !== undefined;
if (!live) say("three VMs, live: skipped, as SYMVIRT_E2E_LIVE is not set (docs/limits.md, emulated guests)");

describe.skipIf(why !== "")("three VMs, one rank each", () => {
  const { get, down } = useLab(shape);
  workloadCases(get, "park");
  describe.skipIf(!live)("live", () => {
    perPeerCases(get);
    workloadCases(get, "live");
  });
  it.skipIf(process.env.SYMVIRT_E2E_KEEP !== undefined)("leaves nothing behind", async () => {
    await down();
    await expectNothingLeft(shape.name);
  });
});
