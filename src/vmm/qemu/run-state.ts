/** Making a VM run, and only where it may. */
import { SymvirtError } from "../../errors.js";
import { abortError, pause } from "../deadline.js";
import { QmpCommandError } from "./qmp-errors.js";
import type { QemuSession } from "./session.js";

const POLL_MS = 20;
/** States that pass by themselves. */
const transient: ReadonlySet<string> = new Set(["inmigrate", "finish-migrate", "restore-vm", "save-vm"]);
/** States from which `cont` goes on. */
const resumable: ReadonlySet<string> = new Set([
  "paused",
  "prelaunch",
  "suspended",
  "io-error",
  "postmigrate",
]);

/**
 * Resolves when the VM runs; waits for an arriving one to have arrived. A VM that has moved away is not
 * resumed (it would run twice) unless `evenIfMoved`.
 */
export async function resumeVm(
  session: QemuSession,
  signal: AbortSignal,
  options: { evenIfMoved?: boolean } = {},
): Promise<void> {
  let lastRefusal = "";
  for (;;) {
    const { status } = await session.execute("query-status", {}, signal);
    if (status === "running") return;
    if (resumable.has(status)) {
      if (options.evenIfMoved !== true && (await hasMoved(session, signal))) throw movedAway(session);
      try {
        await session.execute("cont", {}, signal);
        continue;
      } catch (error) {
        if (!(error instanceof QmpCommandError)) throw error;
        lastRefusal = error.description; // e.g. the migration's last moments; the state is read again
      }
    } else if (!transient.has(status)) {
      throw new SymvirtError("needsOperator", `resume: ${session.name} is in state "${status}"`, {
        hint: "this VM cannot go on: look at its VMM's log",
      });
    } else if (status === "inmigrate") {
      await refuseFailedArrival(session, signal);
    }
    await pause(POLL_MS, signal);
    if (signal.aborted) {
      const why = lastRefusal === "" ? "" : `; last refusal: ${lastRefusal}`;
      throw abortError(signal, `resume: ${session.name} still in state "${status}"${why}`);
    }
  }
}

/** Resolves when the VM stands still; one that does already is left as it is. */
export async function pauseVm(session: QemuSession, signal: AbortSignal): Promise<void> {
  await session.execute("stop", {}, signal);
}

/**
 * Whether an outgoing migration of this VM has completed: it now belongs to the destination. The run state
 * decides: "completed" alone may be the VM's own arrival here.
 */
export async function hasMoved(session: QemuSession, signal: AbortSignal): Promise<boolean> {
  for (;;) {
    const { status } = await session.execute("query-status", {}, signal);
    // The last moment of a migration, completed or not.
    if (status !== "finish-migrate") {
      if (status !== "postmigrate") return false;
      return (await session.execute("query-migrate", {}, signal)).status === "completed";
    }
    await pause(POLL_MS, signal);
    if (signal.aborted) throw abortError(signal, `${session.name} still in state "finish-migrate"`);
  }
}

async function refuseFailedArrival(session: QemuSession, signal: AbortSignal): Promise<void> {
  const migration = await session.execute("query-migrate", {}, signal);
  if (migration.status !== "failed") return;
  throw new SymvirtError("needsOperator", `resume: ${session.name} did not arrive`, {
    hint: migration["error-desc"] ?? "look at its VMM's log",
  });
}

function movedAway(session: QemuSession): SymvirtError {
  return new SymvirtError("refused", `resume: ${session.name} has been migrated away`, {
    hint: "resume it where it is now; running it here too would destroy its disk",
  });
}
