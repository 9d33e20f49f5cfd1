import { describe, expect, it } from "vitest";
import { SymvirtError } from "../errors.js";
import { stoppedPlanning } from "./stopped.js";

describe("an operation stopped while planning", () => {
  it.each([
    [new SymvirtError("deadline", "--timeout (5 s) has passed"), "deadline", "--timeout (5 s) has passed"],
    [new SymvirtError("terminated", "told to end"), "terminated", "told to end"],
    [new Error("`symvirt abort` was called"), "interrupted", "`symvirt abort` was called"],
  ])("by %s has its exit code and says so", (reason, exit, words) => {
    expect(stoppedPlanning(AbortSignal.abort(reason))).toMatchObject({
      exit,
      message: `stopped while planning (${words}); nothing was touched`,
    });
  });
});
