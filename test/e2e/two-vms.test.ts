/** End to end on two VMs with two ranks each, and a spare host. */
import { describe, it } from "vitest";
import { badInput } from "./cases/bad-input.js";
import { cardlessCases } from "./cases/cardless.js";
import { convergenceCases } from "./cases/convergence.js";
import { failureCases } from "./cases/failures.js";
import { guestVerbs } from "./cases/guest-verbs.js";
import { slowTcp } from "./cases/live-pressure.js";
import { parkCycles } from "./cases/park-cycles.js";
import { manyMigrations, workloadCases } from "./cases/workloads.js";
import { expectNothingLeft, type LabShape, labName, useLab, whyNoLab } from "./support/lab-fixture.js";
import { say } from "./support/progress.js";

const shape: LabShape = { name: labName("two"), vms: 2, hosts: 3, ranksPerVm: 2 };
const why = whyNoLab();
if (why !== "") say(`two VMs: skipped, as ${why}`);

describe.skipIf(why !== "")("two VMs, two ranks each", () => {
  const { get, down } = useLab(shape);
  workloadCases(get);
  cardlessCases(get);
  failureCases(get, "live");
  failureCases(get, "park");
  slowTcp(get);
  manyMigrations(get, "live");
  parkCycles(get);
  badInput(get);
  guestVerbs(get);
  convergenceCases(get);
  it.skipIf(process.env.SYMVIRT_E2E_KEEP !== undefined)("leaves nothing behind", async () => {
    await down();
    await expectNothingLeft(shape.name);
  });
});
