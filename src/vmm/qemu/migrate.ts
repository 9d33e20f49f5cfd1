/**
 * Live migration of one VM, source side. What is promised: it resolves only when the VM has moved, and
 * rejects only when it has not and runs here again, or says that a person must look.
 *
 * Two settings make that true. `return-path`: the source completes only when the destination has loaded
 * everything, so a destination that fails to load is our failure and not a lost VM. And a destination
 * that comes up paused (listen.ts): whatever the source decides in the last moment, the VM never runs twice.
 */
import { SymvirtError } from "../../errors.js";
import { abortError, pause } from "../deadline.js";
import { DEFAULT_BANDWIDTH, type MigrateOptions, type MigrationProgress } from "../driver.js";
import { QmpClosedError, QmpCommandError } from "./qmp-errors.js";
import type { EventListener } from "./qmp-events.js";
import { finalMigrationStates, type QueryMigrate } from "./qmp-types.js";
import { hasMoved, resumeVm } from "./run-state.js";
import type { QemuSession } from "./session.js";

/**
 * QEMU's own default, as DEFAULT_BANDWIDTH is. Both are always set: QEMU keeps what an earlier migration that did not complete had
 * set, and a limit asked for once would slow down every later one.
 */
const DEFAULT_DOWNTIME_MS = 300;
/** Not every end comes with an event (a refused connection has none in QEMU 7.2), so it is polled too. */
const POLL_MS = 500;
/** The first polls come faster: a dead port is known within milliseconds. */
const FIRST_POLL_MS = 20;
/** For cancelling and resuming: after the caller's deadline, so it has one of its own. */
const RECOVERY_MS = 15_000;
/** QEMU 7.2 stays "cancelling" until its connect has failed: Linux gives that two minutes when nothing answers. */
const CONNECTING_MS = 150_000;
/** A lost QMP connection (an ssh that broke, say) is dialled again for this long; the migration goes on without us. */
const REDIAL_MS = 5_000;

/** See VmDriver.migrate. */
export async function migrateVm(session: QemuSession, options: MigrateOptions): Promise<MigrationProgress> {
  const { running } = await session.execute("query-status", {}, options.signal);
  await setUp(session, options);
  const end = await attempt(session, options);
  switch (end.kind) {
    case "completed":
      return end.progress;
    case "refused":
      throw end.error;
    case "failed":
      return recover(session, end.error, running);
  }
}

/** See VmDriver.cancelMigration. */
export async function cancelMigration(
  session: QemuSession,
  signal: AbortSignal,
): Promise<"runs-here" | "moved"> {
  await cancel(session, signal);
  if (await hasMoved(session, signal)) return "moved";
  await resumeVm(session, signal);
  return "runs-here";
}

type End =
  | { kind: "completed"; progress: MigrationProgress }
  /** QEMU did not begin: there is nothing to cancel, and a migration that is on is not ours. */
  | { kind: "refused"; error: SymvirtError }
  /** It may have begun and may still be on. */
  | { kind: "failed"; error: SymvirtError };

async function attempt(session: QemuSession, options: MigrateOptions): Promise<End> {
  const { uri, signal } = options;
  const events = await session.listen(["MIGRATION"], signal);
  try {
    try {
      await session.execute("migrate", { uri }, signal);
    } catch (error) {
      if (error instanceof QmpCommandError) {
        return { kind: "refused", error: refusedToStart(session, uri, error) };
      }
      throw error;
    }
    const final = await follow(session, events, options);
    if (final.status === "completed") {
      await hasMoved(session, signal); // waits for the last moment to pass: then the source is at rest
      return { kind: "completed", progress: toProgress(final) };
    }
    return {
      kind: "failed",
      error: failed(session, uri, final["error-desc"] ?? `it ended "${final.status}"`),
    };
  } catch (error) {
    const failure = error instanceof SymvirtError ? error : failed(session, uri, String(error), error);
    return { kind: "failed", error: failure };
  } finally {
    events.close();
  }
}

async function setUp(session: QemuSession, options: MigrateOptions): Promise<void> {
  const { signal } = options;
  const known = await session.execute("query-migrate-capabilities", {}, signal);
  const wanted = {
    // Left on by a capture whose controller was killed, and at odds with the others.
    "background-snapshot": false,
    ...{ events: true, "return-path": true, "auto-converge": options.autoConverge === true },
  };
  const capabilities = Object.entries(wanted)
    .filter(([name]) => known.some((one) => one.capability === name))
    .map(([capability, state]) => ({ capability, state }));
  try {
    await session.execute("migrate-set-capabilities", { capabilities }, signal);
    await session.execute(
      "migrate-set-parameters",
      {
        "max-bandwidth": options.bandwidthBytesPerSecond ?? DEFAULT_BANDWIDTH,
        "downtime-limit": options.maxDowntimeMs ?? DEFAULT_DOWNTIME_MS,
      },
      signal,
    );
  } catch (error) {
    throw error instanceof QmpCommandError ? refusedToStart(session, options.uri, error) : error;
  }
}

/** Reports progress until the migration is in a final state. Throws on abort, or when QEMU stays out of reach. */
async function follow(
  session: QemuSession,
  events: EventListener,
  options: MigrateOptions,
): Promise<QueryMigrate> {
  const { signal } = options;
  let pollMs = FIRST_POLL_MS;
  for (;;) {
    const now = await queryPersistently(session, signal);
    if (now.status !== undefined && finalMigrationStates.has(now.status)) return now;
    options.onProgress?.(toProgress(now));
    await events.wake(signal, pollMs);
    while (events.poll() !== undefined); // the state itself is read, the event only says when
    pollMs = Math.min(pollMs * 2, POLL_MS);
    if (signal.aborted) throw abortError(signal, `migration of ${session.name} to ${options.uri}`);
  }
}

export async function queryPersistently(session: QemuSession, signal: AbortSignal): Promise<QueryMigrate> {
  const until = performance.now() + REDIAL_MS;
  for (;;) {
    try {
      return await session.execute("query-migrate", {}, signal);
    } catch (error) {
      // Only a connection that broke is worth a new one; a refused dial means the VMM has ended.
      if (!(error instanceof QmpClosedError) || signal.aborted || performance.now() > until) throw error;
      await pause(FIRST_POLL_MS, signal);
    }
  }
}

/** Cancels, waits for the final state and sees to it that the source runs; then throws `failure`. */
async function recover(
  session: QemuSession,
  failure: SymvirtError,
  wasRunning: boolean,
): Promise<MigrationProgress> {
  const signal = AbortSignal.timeout(RECOVERY_MS);
  try {
    const final = await cancel(session, signal, CONNECTING_MS);
    // The abort came too late: the VM has moved, and resuming it here would run it twice.
    if (await hasMoved(session, AbortSignal.timeout(RECOVERY_MS))) return toProgress(final);
    if (wasRunning) await resumeVm(session, AbortSignal.timeout(RECOVERY_MS));
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new SymvirtError(
      error instanceof SymvirtError && error.exit === "unreachable" ? "unreachable" : "needsOperator",
      `${failure.message}; and ${session.name} could not be brought back: ${why}`,
      {
        hint: "look with query-status and query-migrate which side has the VM, end the other, then `cont`",
        cause: failure,
        // It may have gone on without us to its end.
        unsettled: true,
      },
    );
  }
  throw failure;
}

/**
 * migrate_cancel (harmless when nothing is on) and the final state that follows. `connectingMs`: how much longer to wait
 * while QEMU, whose VM runs all the time, has not got through to the destination.
 */
export async function cancel(
  session: QemuSession,
  signal: AbortSignal,
  connectingMs = 0,
): Promise<QueryMigrate> {
  let limit = signal;
  let moreMs = connectingMs;
  for (;;) {
    const now = await queryPersistently(session, limit).catch((error: unknown) => {
      if (!limit.aborted || moreMs === 0) throw error;
    });
    if (now !== undefined) {
      if (now.status === undefined || finalMigrationStates.has(now.status) || now.status === "none")
        return now;
      if (now.status !== "cancelling" && !limit.aborted) await session.execute("migrate_cancel", {}, limit);
      await pause(FIRST_POLL_MS, limit);
    }
    if (!limit.aborted) continue;
    const last = AbortSignal.timeout(moreMs);
    if (moreMs === 0 || !(await session.execute("query-status", {}, last)).running)
      throw abortError(limit, `cancel of the migration of ${session.name} ("${now?.status ?? "not known"}")`);
    limit = last;
    moreMs = 0;
  }
}

export function toProgress(reply: QueryMigrate): MigrationProgress {
  const { ram } = reply;
  return {
    status: reply.status ?? "none",
    transferred: ram?.transferred ?? 0,
    remaining: ram?.remaining ?? 0,
    total: ram?.total ?? 0,
    dirtyBytesPerSecond: (ram?.["dirty-pages-rate"] ?? 0) * (ram?.["page-size"] ?? 0),
    sentBytesPerSecond: ((ram?.mbps ?? 0) * 1e6) / 8,
    ...(reply.status === "completed"
      ? { downtimeMs: reply.downtime ?? 0, totalMs: reply["total-time"] ?? 0 }
      : {}),
  };
}

function failed(session: QemuSession, uri: string, why: string, cause?: unknown): SymvirtError {
  return new SymvirtError("rolledBack", `migration of ${session.name} to ${uri} failed: ${why}`, {
    hint: "the VM runs on its source; look at the destination VMM's log",
    ...(cause === undefined ? {} : { cause }),
  });
}

function refusedToStart(session: QemuSession, uri: string, error: QmpCommandError): SymvirtError {
  return new SymvirtError(
    "refused",
    `migration of ${session.name} to ${uri} did not begin: ${error.description}`,
    { hint: "symvirt plan shows what blocks a migration", cause: error },
  );
}
