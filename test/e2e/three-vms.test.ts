/** End to end on three VMs with one rank each, and a spare host. */
import { describe, it } from "vitest";
import { lateRank } from "./cases/live-pressure.js";
import { perPeerCases } from "./cases/per-peer.js";
import { workloadCases } from "./cases/workloads.js";
import { inFull } from "./support/extent.js";
import { expectNothingLeft, type LabShape, labName, useLab, whyNoLab } from "./support/lab-fixture.js";
import { say } from "./support/progress.js";

const shape: LabShape = { name: labName("three"), vms: 3, hosts: 4, ranksPerVm: 1 };
const why = whyNoLab();
if (why !== "") say(`three VMs: skipped, as ${why}`);

describe.skipIf(why !== "")("three VMs, one rank each", () => {
  const { get, down } = useLab(shape);
  inFull("routes of each pair", () => perPeerCases(get));
  workloadCases(get, ["ring", "onesided"]);
  inFull("a rank that computes", () => lateRank(get));
  it.skipIf(process.env.SYMVIRT_E2E_KEEP !== undefined)("leaves nothing behind", async () => {
    await down();
    await expectNothingLeft(shape.name);
  });
});
