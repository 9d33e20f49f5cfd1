/** `symvirt checkpoints` as a user calls it: what goes to stdout and stderr, and the exit code. */
import { createHash } from "node:crypto";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { CheckpointStore } from "../checkpoint/store.js";
import { loadCluster } from "../controller/cluster-file.js";
import { run } from "./run.js";

let folder: string;
let file: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "symvirt-cli-"));
  file = join(folder, "cluster.yaml");
  cluster("c");
});
afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
  vi.restoreAllMocks();
  process.exitCode = undefined;
});

function cluster(name: string, checkpoints = `{ path: ${folder}/store }`): void {
  writeFileSync(
    file,
    `version: 1
name: ${name}
state: ${folder}/state
hosts: { h1: { address: 10.0.0.1, runtime: ${folder}/h1 } }
vms: { vm1: { host: h1, command: [sh, -pidfile, "{runtime}/{vm}.pid"] } }
${checkpoints === "" ? "" : `checkpoints: ${checkpoints}`}
`,
  );
}

/** Runs a command line in this process; captures what it says. */
async function symvirt(...argv: string[]): Promise<{ code: number; out: string; err: string }> {
  const said = { out: "", err: "" };
  const spies = (["out", "err"] as const).map((to) =>
    vi.spyOn(to === "out" ? process.stdout : process.stderr, "write").mockImplementation((text) => {
      said[to] += String(text);
      return true;
    }),
  );
  process.exitCode = undefined;
  await run([...argv, "-c", file]);
  const code = Number(process.exitCode ?? 0);
  process.exitCode = undefined;
  for (const spy of spies) spy.mockRestore();
  return { code, ...said };
}

const json = async (...argv: string[]) => {
  const { code, out } = await symvirt("checkpoints", ...argv, "--json");
  return { code, value: JSON.parse(out) as unknown };
};

function made(name: string, disk: "copy" | "internal-snapshot" = "copy"): string {
  const pending = new CheckpointStore(loadCluster(file)).begin({ name, what: "x", neededBytes: 1 });
  const part = (name: string, bytes: string) => {
    writeFileSync(pending.place(name).path, bytes);
    const sha256 = createHash("sha256").update(bytes).digest("hex");
    return { file: name, encoding: "zstd" as const, rawBytes: 2 ** 21, storedBytes: bytes.length, sha256 };
  };
  const kept =
    disk === "copy" ? { kind: disk, part: part("vm1.disk0.zst", "disk") } : { kind: disk, snapshot: "sv-1" };
  pending.commit({
    cycle: 3,
    cut: { method: "links-down", capture: "background-snapshot", withoutNetworkMs: 109.2 },
    vms: [
      {
        vm: "vm1",
        host: "h1",
        argv: ["sh"],
        qemu: "7.2.22",
        machine: "pc-q35-7.2",
        memoryBytes: 2 ** 30,
        cards: [{ tag: "hca0", bus: "rp0", card: "c0", driver: "e1000e", identity: {} }],
        pauseMs: 28.4,
        ram: part("vm1.ram.zst", "memory"),
        disks: [{ drive: "disk0", image: "/d.qcow2", format: "qcow2", kept }],
      },
    ],
    jobs: [{ job: "ring", worldSize: 1, ranks: [{ rank: 0, vm: "vm1", epoch: 2 }] }],
  });
  return pending.id;
}

describe("symvirt checkpoints", () => {
  it("lists, shows and tells both as JSON", async () => {
    expect(await symvirt("checkpoints")).toEqual({
      code: 0,
      out: `no checkpoints in ${folder}/store\n`,
      err: "",
    });
    const id = made("nightly");
    writeFileSync(join(folder, "store", made("odd"), "manifest.json"), "{");
    const list = await symvirt("checkpoints");
    expect(list.code).toBe(0);
    const lines = list.out.split("\n");
    expect(lines[0]).toMatch(/^ID +STATE +VMS +MEMORY +STORED +PAUSE +JOBS$/);
    expect(lines[1]).toMatch(/^\S+Z-nightly +complete +vm1 +1024.0 MiB +0.0 MiB +29 ms +ring$/);
    expect(lines[2]).toMatch(/^\S+Z-odd +damaged +- +- +0.0 MiB +- +-$/);
    expect(lines[3]).toMatch(/^\S+Z-odd: its manifest is not JSON$/);
    expect(await symvirt("checkpoints", "ls")).toEqual(list);
    expect(await json()).toMatchObject({
      code: 0,
      value: {
        schemaVersion: 1,
        path: `${folder}/store`,
        checkpoints: [{ id, state: "complete" }, { state: "damaged" }],
      },
    });
    const show = await symvirt("checkpoints", "show", id);
    expect(show.out).toContain(`checkpoint ${id}: complete\n`);
    expect(show.out).toContain(
      "cluster c, cycle 3\n  cut: links-down, background-snapshot, 110 ms without network\n",
    );
    expect(show.out).toMatch(/vm1.ram.zst +vm1 +memory +2.0 MiB +0.0 MiB +[0-9a-f]{12}\n/);
    expect(show.out).toMatch(/vm1.disk0.zst +vm1 +disk0: copy /);
    expect(show.out).toContain("job ring: 1 rank, epoch 2\n");
    expect(await json("show", id)).toMatchObject({
      value: { schemaVersion: 1, checkpoint: { id, state: "complete", manifest: { cluster: "c" } } },
    });
  });

  it("verifies one or all, exit 3 when a part is damaged", async () => {
    const [good, bad, worse] = [made("good"), made("bad"), made("worse")].sort((a, b) =>
      a.slice(17).localeCompare(b.slice(17)),
    ) as [string, string, string];
    expect(await symvirt("checkpoints", "verify", good)).toMatchObject({
      code: 0,
      out: `${good}: well, 2 parts read\n`,
    });
    writeFileSync(join(folder, "store", bad, "vm1.ram.zst"), "mEmory");
    writeFileSync(join(folder, "store", worse, "manifest.json"), "{");
    expect(await symvirt("checkpoints", "verify", bad)).toMatchObject({
      code: 3,
      out: `${bad}: damaged, 2 parts read\n  - vm1.ram.zst has another SHA-256 than the manifest says\n`,
    });
    const all = await symvirt("checkpoints", "verify");
    expect(all.code).toBe(3);
    expect(all.out).toContain(`${good}: well`);
    expect(all.out).toContain(`checkpoint ${worse} is damaged: its manifest is not JSON`);
    expect(await json("verify")).toMatchObject({ code: 3, value: { schemaVersion: 1, ok: false } });
  });

  it("removes and prunes, not what is in use", async () => {
    const ids = [made("a"), made("b"), made("c")].sort();
    const hold = new CheckpointStore(loadCluster(file)).hold(ids[0]!, "restart");
    const refused = await symvirt("checkpoints", "rm", ids[0]!);
    expect(refused).toMatchObject({ code: 3, out: "" });
    expect(refused.err).toContain(`checkpoint ${ids[0]} is in use: restart (pid ${process.pid})`);
    const prune = await symvirt("checkpoints", "prune", "--keep", "1");
    expect(prune).toMatchObject({ code: 0, out: `removed ${ids[1]}\n` });
    expect(prune.err).toContain(`not removed: checkpoint ${ids[0]} is in use`);
    hold.release();
    expect(await json("prune", "--keep", "1")).toEqual({
      code: 0,
      value: { schemaVersion: 1, removed: [ids[0]], kept: [ids[2]], refused: [] },
    });
    expect(await json("rm", ids[2]!)).toEqual({ code: 0, value: { schemaVersion: 1, removed: [ids[2]] } });
    expect(readdirSync(join(folder, "store"))).toEqual([]);
  });

  it("--force takes a base away; a snapshot inside an image is told of", async () => {
    const id = made("a", "internal-snapshot");
    new CheckpointStore(loadCluster(file)).addBase(id, { name: "x", what: "vm1 runs on its disks" });
    expect(await symvirt("checkpoints", "rm", id)).toMatchObject({ code: 3 });
    const forced = await symvirt("checkpoints", "rm", "--force", id);
    expect(forced).toMatchObject({ code: 0, out: `removed ${id}\n` });
    expect(forced.err).toContain("vm1: the snapshot sv-1 stays in /d.qcow2");
  });

  it("takes its options before the verb, too", async () => {
    const id = made("a");
    const spy = vi.spyOn(process.stdout, "write").mockReturnValue(true);
    await run(["checkpoints", "-c", file, "--json", "show", id]);
    expect(JSON.parse(String(spy.mock.calls[0]?.[0]))).toMatchObject({ checkpoint: { id } });
  });

  it("tells a wrong call on stdout where JSON was asked for", async () => {
    vi.spyOn(process.stderr, "write").mockReturnValue(true);
    const spy = vi.spyOn(process.stdout, "write").mockReturnValue(true);
    await run(["migrate", "vm1", "--json"]);
    expect(JSON.parse(String(spy.mock.calls[0]?.[0]))).toMatchObject({
      ...{ schemaVersion: 1, ok: false },
      error: { exit: "usage", message: expect.stringContaining("--to") },
    });
    process.exitCode = undefined;
  });

  it("says what is wrong with the call: exit 2", async () => {
    expect(await symvirt("checkpoints", "show", "../x")).toMatchObject({ code: 2 });
    expect(await symvirt("checkpoints", "prune")).toMatchObject({ code: 2 });
    expect(await symvirt("checkpoints", "prune", "--keep", "0")).toMatchObject({ code: 2 });
    expect(await symvirt("checkpoints", "lss")).toMatchObject({ code: 2 });
    cluster("c", "");
    const none = await symvirt("checkpoints");
    expect(none.code).toBe(2);
    expect(none.err).toContain('cluster "c" has no checkpoint store');
  });

  it("of a store that is no folder says so: exit 2", async () => {
    writeFileSync(join(folder, "store"), "");
    for (const words of [["ls"], ["show", "20261125T013000Z"], ["verify"]]) {
      const result = await symvirt("checkpoints", ...words);
      expect(result).toMatchObject({ code: 2, out: "" });
      expect(result.err).toContain(`cannot use the checkpoint store ${folder}/store (ENOTDIR)`);
      expect(result.err).toContain("check checkpoints.path");
    }
  });

  it("shows another cluster's checkpoints and leaves them alone", async () => {
    const id = made("a");
    cluster("d");
    expect((await symvirt("checkpoints")).out).toContain(`${id}: it is of cluster "c", and this is "d"`);
    expect(await symvirt("checkpoints", "rm", id)).toMatchObject({ code: 3 });
    expect(await symvirt("checkpoints", "verify")).toMatchObject({
      code: 0,
      err: `no checkpoints of this cluster in ${folder}/store\n`,
    });
  });
});
