import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { missingPackages } from "./preflight.js";
import { run, runForResult } from "./process.js";

describe("run", () => {
  it("gives stdout, and takes input", async () => {
    expect(await run(["cat"], { input: "hello" })).toBe("hello");
  });

  it("fails with the command's last words", async () => {
    await expect(run(["sh", "-c", "echo out; echo no room >&2; exit 3"])).rejects.toThrow(
      /status 3: no room$/,
    );
    expect(await runForResult(["sh", "-c", "exit 3"])).toMatchObject({ code: 3, signal: null });
  });

  it("says which command is not installed", async () => {
    await expect(run(["no-such-command"])).rejects.toMatchObject({ exit: "refused" });
  });

  it("rejects with the abort's reason once the command has ended", async () => {
    const stop = new AbortController();
    let lines = 0;
    const slow = run(["sh", "-c", "trap 'echo late; exit 0' TERM; echo up; while :; do sleep 0.05; done"], {
      signal: stop.signal,
      onLine: () => {
        if (++lines === 1) stop.abort(new Error("enough"));
      },
    });
    await expect(slow).rejects.toThrow("enough");
    expect(lines).toBe(2);
  });
});

describe("missingPackages", () => {
  it("names the Debian package of each command that is not in $PATH", () => {
    const folder = mkdtempSync(join(tmpdir(), "symvirt-path-"));
    writeFileSync(join(folder, "qemu-img"), "", { mode: 0o755 });
    const missing = missingPackages({ PATH: folder });
    rmSync(folder, { recursive: true });
    expect(missing).toContain("qemu-system-x86");
    expect(missing).not.toContain("qemu-utils");
  });
});
