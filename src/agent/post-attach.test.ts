import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pino } from "pino";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { Card } from "./devices.js";
import { PostAttach, type PostAttachOptions } from "./post-attach.js";

let folder: string;
let hooks: PostAttach;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "symvirt-hook-"));
});
afterEach(() => {
  hooks.close();
  rmSync(folder, { recursive: true, force: true });
});

const card = (extra: Partial<Card> = {}): Card => ({
  pci: "0000:01:00.0",
  driver: "e1000e",
  netdev: "eth1",
  mac: "52:54:00:00:00:01",
  verbs: "",
  port: "",
  gid: "",
  ifindex: 3,
  ...extra,
});

function start(body: string | undefined, options: Partial<PostAttachOptions> = {}): void {
  if (body !== undefined) {
    writeFileSync(join(folder, "post-attach"), `#!/bin/sh\n${body}\n`);
    chmodSync(join(folder, "post-attach"), 0o755);
  }
  hooks = new PostAttach({
    hooks: folder,
    log: pino({ level: "silent" }),
    ended: () => undefined,
    firstBackoffMs: 20,
    ...options,
  });
}

const runs = () =>
  existsSync(join(folder, "runs")) ? readFileSync(join(folder, "runs"), "utf8").trim().split("\n") : [];
const RECORD = (folder: string) => `echo "$SYMVIRT_PCI $SYMVIRT_NETDEV $SYMVIRT_MAC" >> ${folder}/runs`;

describe("post-attach", () => {
  it("runs once for a card, with what it needs in its environment", async () => {
    const ended = vi.fn();
    start(RECORD(folder), { ended });
    hooks.update([card()]);
    hooks.update([card()]);
    await vi.waitFor(() => expect(ended).toHaveBeenCalledOnce());
    hooks.update([card({ verbs: "rxe0" })]);
    expect(runs()).toEqual(["0000:01:00.0 eth1 52:54:00:00:00:01"]);
    expect(hooks.error).toBe("");
  });

  it("does not run at start for a card that has its verbs device, but for one that comes later", async () => {
    start(RECORD(folder));
    hooks.update([card({ verbs: "rxe0" })]);
    hooks.update([]);
    hooks.update([card({ ifindex: 4 })]);
    await vi.waitFor(() => expect(runs()).toHaveLength(1));
  });

  it("runs anew for another card at the same address, even if nobody saw the gap", async () => {
    start(RECORD(folder));
    hooks.update([card()]);
    await vi.waitFor(() => expect(runs()).toHaveLength(1));
    hooks.update([card({ ifindex: 9 })]);
    await vi.waitFor(() => expect(runs()).toHaveLength(2));
  });

  it("waits for the driver: no run while there is neither interface nor verbs device", async () => {
    start(RECORD(folder));
    hooks.update([]);
    hooks.update([card({ netdev: "", ifindex: 0 })]);
    hooks.update([card()]);
    await vi.waitFor(() => expect(runs()).toHaveLength(1));
  });

  it("tells a failure with the hook's words and tries again until it works", async () => {
    start(
      `${RECORD(folder)}\n[ "$(wc -l < ${folder}/runs)" -ge 3 ] && exit 0\necho "no such link" >&2\nexit 4`,
    );
    hooks.update([card()]);
    await vi.waitFor(() => expect(hooks.error).toBe("post-attach for 0000:01:00.0: exit 4: no such link"));
    await vi.waitFor(() => expect(hooks.error).toBe(""), { timeout: 5000 });
    expect(runs()).toHaveLength(3);
  });

  it("stops trying when the card has gone", async () => {
    start(`${RECORD(folder)}\nexit 1`, { firstBackoffMs: 100 });
    hooks.update([card()]);
    await vi.waitFor(() => expect(hooks.error).not.toBe(""));
    hooks.update([]);
    expect(hooks.error).toBe("");
    const before = runs().length;
    await new Promise((resolve) => setTimeout(resolve, 250));
    expect(runs()).toHaveLength(before);
  });

  it("ends a hook that hangs, with all it started", async () => {
    start(`sleep 1000 & echo $! > ${folder}/child\nwait`, { timeoutMs: 400, firstBackoffMs: 60_000 });
    hooks.update([card()]);
    await vi.waitFor(() => expect(hooks.error).toContain("no end within 0.4 s"), { timeout: 5000 });
    const pid = Number(readFileSync(join(folder, "child"), "utf8"));
    await vi.waitFor(() => expect(isRunning(pid)).toBe(false));
  });

  it("keeps only the end of a chatty hook's output", async () => {
    start("head -c 1000000 /dev/zero | tr '\\0' x; echo last words; exit 1");
    hooks.update([card()]);
    await vi.waitFor(() => expect(hooks.error).toContain("exit 1"), { timeout: 5000 });
    expect(hooks.error.length).toBeLessThanOrEqual(256);
  });

  it("does nothing without a hook, and says so if it cannot be executed", async () => {
    start(undefined);
    hooks.update([card()]);
    expect(hooks.error).toBe("");
    hooks.close();
    start("exit 0");
    chmodSync(join(folder, "post-attach"), 0o644);
    hooks.update([card()]);
    expect(hooks.error).toContain("cannot be executed");
  });
});

function isRunning(pid: number): boolean {
  try {
    return !readFileSync(`/proc/${pid}/stat`, "latin1").includes(") Z ");
  } catch {
    return false;
  }
}
