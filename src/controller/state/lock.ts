/**
 * One controller at a time. Whoever wants to be it puts its own record (pid, start time, random name) into
 * the lock folder and then looks at the others: if any of them lives, it withdraws. Of two that come at
 * once the later sees the earlier, so two never hold it. A record of a dead process belongs to nobody
 * else and can be removed by anyone: a stale lock needs no take-over and cannot be taken twice.
 */
import { randomBytes } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { z } from "zod";
import { SymvirtError } from "../../errors.js";
import { livesHere, ownIdentity, processIdentity } from "./process-identity.js";

const holderSchema = processIdentity.extend({
  /** What it does, e.g. "migrate vm1 to h3". */
  what: z.string(),
  /** Whether it changes anything; a reader's lock is short and is waited for. */
  acting: z.boolean(),
});
export type LockHolder = z.infer<typeof holderSchema>;

const READER_MS = 150_000;

export interface HeldLock {
  /** Says what this controller does now, for those who find it locked. */
  describe(what: string): void;
  release(): void;
}

/** Those who hold (or are just asking for) the lock. Records of dead processes are removed. */
export function lockHolders(folder: string, except?: string): LockHolder[] {
  const lock = join(folder, "lock");
  let names: string[];
  try {
    names = readdirSync(lock);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw error;
  }
  const living: LockHolder[] = [];
  for (const name of names) {
    if (name === except || !name.endsWith(".json")) continue;
    try {
      const holder = holderSchema.parse(JSON.parse(readFileSync(join(lock, name), "utf8")));
      if (livesHere(holder)) living.push(holder);
      else rmSync(join(lock, name), { force: true });
    } catch (error) {
      // Released between readdir and read; anything else is not one of ours.
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") rmSync(join(lock, name), { force: true });
    }
  }
  return living;
}

/** "cycle 12 (migrate vm1 to h3, pid 4711) is running". */
export function refusedBy(holder: LockHolder): SymvirtError {
  return new SymvirtError("refused", `${holder.what} (pid ${holder.pid}) is running`, {
    hint: "see `symvirt status`, `symvirt abort`",
  });
}

/**
 * Takes the lock, waiting at most `waitMs` for readers and for others who are just asking.
 * Throws "refused" with the holder when an acting controller has it.
 */
export async function acquireLock(
  folder: string,
  options: { what: string; acting: boolean; waitMs: number },
): Promise<HeldLock> {
  const lock = join(folder, "lock");
  mkdirSync(lock, { recursive: true, mode: 0o700 });
  const name = `${process.pid}-${randomBytes(8).toString("hex")}.json`;
  const path = join(lock, name);
  const write = (what: string) => {
    const mine: LockHolder = {
      ...ownIdentity(),
      what,
      acting: options.acting,
    };
    writeFileSync(`${path}.tmp`, JSON.stringify(mine), { mode: 0o600 });
    renameSync(`${path}.tmp`, path);
  };
  const until = performance.now() + options.waitMs;
  // What acts waits longer for one that only looks: a plan asks every VM and agent, each up to its deadline.
  const untilReadersEnd = options.acting ? Math.max(until, performance.now() + READER_MS) : until;
  let refusal: LockHolder | undefined;
  for (;;) {
    write(options.what);
    const others = lockHolders(folder, name);
    if (others.length === 0) break;
    rmSync(path, { force: true });
    const acting = others.find((o) => o.acting);
    // Two that ask at once both withdraw; who is still there after the pause really has it.
    if (acting !== undefined && acting.pid === refusal?.pid) throw refusedBy(acting);
    if (performance.now() > (acting === undefined ? untilReadersEnd : until))
      throw refusedBy(acting ?? (others[0] as LockHolder));
    refusal = acting;
    await sleep(20 + Math.random() * 80);
  }
  return {
    describe: write,
    release: () => rmSync(path, { force: true }),
  };
}
