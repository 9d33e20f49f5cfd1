/**
 * How much is tried in the lab: what fits into an hour of two processors, or all of it (about two hours;
 * `SYMVIRT_E2E=full npm test -- e2e`).
 */
import { describe } from "vitest";
import { say } from "./progress.js";

export const full = process.env.SYMVIRT_E2E === "full";

/** Cases of the full extent; otherwise they are skipped, and it is said why. */
export function inFull(what: string, cases: () => void): void {
  if (!full) say(`${what}: skipped, SYMVIRT_E2E=full runs it`);
  describe.skipIf(!full)(`full extent: ${what}`, cases);
}
