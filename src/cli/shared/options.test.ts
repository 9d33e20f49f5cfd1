import { Command } from "commander";
import { describe, expect, it } from "vitest";
import { type LimitFlags, limitsOf, withLimits } from "./options.js";

function limits(...words: string[]) {
  const command = withLimits(new Command())
    .exitOverride()
    .configureOutput({ writeErr: () => undefined });
  return limitsOf(command.parse(words, { from: "user" }).opts<LimitFlags>());
}

describe("limits of pre-copy as options", () => {
  it("are read with their units; what is not said is not there", () => {
    expect(limits()).toEqual({});
    expect(limits("--bandwidth", "8M", "--max-downtime", "1s", "--park-after", "2m")).toEqual({
      ...{ bandwidthBytesPerSecond: 8 * 2 ** 20, maxDowntimeMs: 1000, parkAfterMs: 120_000 },
    });
    expect(limits("--park-after", "never")).toEqual({ parkAfterMs: "never" });
  });

  it.each(["0s", "soon", "-1s", "Never", ""])("--park-after %s is refused, with what it may be", (word) => {
    expect(() => limits(`--park-after=${word}`)).toThrow(/a duration such as .*"never"/);
  });
});
