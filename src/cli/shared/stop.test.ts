/** What a verb ends with when the user stops it. */
import { afterEach, describe, expect, it, vi } from "vitest";
import { SymvirtError } from "../../errors.js";
import { catchingSignals } from "./stop.js";

const after = (stop: (signal: AbortSignal) => Promise<never>) =>
  catchingSignals(async ({ signal }) => {
    process.emit("SIGINT");
    return await stop(signal);
  });

describe("a verb that is stopped", () => {
  afterEach(() => void vi.restoreAllMocks());

  it("says so, and not that whoever it waited for is out of reach", async () => {
    vi.spyOn(process.stderr, "write").mockReturnValue(true);
    const waiting = after((signal) => {
      throw new SymvirtError("unreachable", "the agent of vm1 does not answer", { cause: signal.reason });
    });
    await expect(waiting).rejects.toMatchObject({ exit: "interrupted", exitCode: 130 });
  });

  it("does not hide what went wrong besides", async () => {
    vi.spyOn(process.stderr, "write").mockReturnValue(true);
    const failing = after(() => {
      throw new SymvirtError("needsOperator", "vm1 runs on h1 and on h2 at once");
    });
    await expect(failing).rejects.toMatchObject({ exit: "needsOperator" });
  });

  it("leaves no handler behind", async () => {
    const before = process.listenerCount("SIGINT");
    await catchingSignals(() => Promise.resolve(1));
    expect(process.listenerCount("SIGINT")).toBe(before);
  });
});
