/** End to end on two VMs with two ranks each, and a spare host. */
import { describe, it } from "vitest";
import { badInput } from "./cases/bad-input.js";
import { cardlessCases, otherCard } from "./cases/cardless.js";
import { checkpointCases } from "./cases/checkpoint.js";
import { convergenceCases } from "./cases/convergence.js";
import { failureCases } from "./cases/failures.js";
import { guestVerbs } from "./cases/guest-verbs.js";
import { setKills } from "./cases/set-kills.js";
import { serveCases } from "./cases/serve.js";
import { slowTcp } from "./cases/live-pressure.js";
import { parkCycles } from "./cases/park-cycles.js";
import { manyMigrations, workloadCases } from "./cases/workloads.js";
import { inFull } from "./support/extent.js";
import { expectNothingLeft, type LabShape, labName, useLab, whyNoLab } from "./support/lab-fixture.js";
import { say } from "./support/progress.js";

const shape: LabShape = { name: labName("two"), vms: 2, hosts: 3, ranksPerVm: 2 };
const why = whyNoLab();
if (why !== "") say(`two VMs: skipped, as ${why}`);

describe.skipIf(why !== "")("two VMs, two ranks each", () => {
  const { get, down } = useLab(shape);
  workloadCases(get);
  cardlessCases(get);
  inFull("checkpoint and restart", () => checkpointCases(get));
  inFull("killed checkpoints", () => setKills(get));
  inFull("served", () => serveCases(get));
  failureCases(get, "park");
  parkCycles(get);
  badInput(get);
  guestVerbs(get);
  inFull("failures under live", () => failureCases(get, "live"));
  inFull("a card that looks different", () => otherCard(get));
  inFull("puts over a slow tcp", () => slowTcp(get));
  inFull("ten migrations", () => manyMigrations(get, "live"));
  inFull("convergence", () => convergenceCases(get));
  it.skipIf(process.env.SYMVIRT_E2E_KEEP !== undefined)("leaves nothing behind", async () => {
    await down();
    await expectNothingLeft(shape.name);
  });
});
