/** A checkpoint store in a folder of its own, and checkpoints in it as a capture would leave them. */
import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "vitest";
import type { Captured, Manifest } from "../../src/checkpoint/manifest.js";
import { CheckpointStore, type PendingCheckpoint } from "../../src/checkpoint/store.js";
import { SymvirtError } from "../../src/errors.js";

export class StoreWorld {
  readonly folder = mkdtempSync(join(tmpdir(), "symvirt-store-"));
  readonly path = join(this.folder, "store");
  readonly store = this.storeOf("c");

  /** The same folder seen with another cluster's file, or another folder. */
  storeOf(name: string, at = this.path): CheckpointStore {
    return new CheckpointStore({ name, checkpoints: { path: at, level: 1 } });
  }

  begin(name?: string): PendingCheckpoint {
    return this.store.begin({ name, what: "checkpoint of vm1", neededBytes: 1 });
  }

  made(name?: string): Manifest {
    const pending = this.begin(name);
    return pending.commit(capture(pending));
  }

  /** Changes a manifest on the disk, as another version, another cluster or a bad disk would have it. */
  spoil(id: string, change: (manifest: Record<string, unknown>) => void): void {
    const file = join(this.path, id, "manifest.json");
    const json = JSON.parse(readFileSync(file, "utf8")) as Record<string, unknown>;
    change(json);
    writeFileSync(file, JSON.stringify(json));
  }

  close(): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** A capture of one VM whose memory is `bytes`, its file written as a host would have. */
export function capture(pending: PendingCheckpoint, bytes = "memory"): Captured {
  const place = pending.place("vm1.ram.zst");
  writeFileSync(place.path, bytes);
  const part = {
    file: place.file,
    encoding: "zstd" as const,
    rawBytes: 1000,
    storedBytes: bytes.length,
    sha256: createHash("sha256").update(bytes).digest("hex"),
  };
  return {
    cycle: 3,
    cut: { method: "links-down", capture: "background-snapshot", withoutNetworkMs: 110 },
    vms: [
      {
        vm: "vm1",
        host: "h1",
        argv: ["qemu-system-x86_64"],
        qemu: "7.2.22",
        machine: "pc-q35-7.2",
        memoryBytes: 4000,
        cards: [
          { tag: "hca0", bus: "rp0", card: "c0", driver: "e1000e", identity: { mac: "52:54:00:00:00:01" } },
        ],
        pauseMs: 28.5,
        ram: part,
        disks: [
          {
            drive: "disk0",
            image: "/d.qcow2",
            format: "qcow2",
            kept: { kind: "internal-snapshot", snapshot: "s" },
          },
        ],
      },
    ],
    jobs: [{ job: "j", worldSize: 1, ranks: [{ rank: 0, vm: "vm1", epoch: 2 }] }],
  };
}

/** The SymvirtError that `work` throws. */
export function refusal(work: () => unknown): SymvirtError {
  try {
    work();
  } catch (error) {
    expect(error).toBeInstanceOf(SymvirtError);
    return error as SymvirtError;
  }
  throw new Error("it was taken");
}
