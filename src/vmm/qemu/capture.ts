/**
 * Memory, devices and disks of one VM at one instant, while it runs on. The VM is stopped, the copies of its disks
 * begin, and a background snapshot begins, which makes the VM run again once its memory is write-protected: all three
 * are of the time between STOP and RESUME. Without write-protection by userfaultfd in the host the VM stands still
 * until its memory is written.
 *
 * A background snapshot must not fail and must not be cancelled once it has begun: QEMU (7.2 at least) then leaves
 * the memory write-protected, and the VM hangs at its next write. So whatever becomes of the sink, something reads
 * the stream to its end, and who gives up waits for that end.
 */
import { SymvirtError } from "../../errors.js";
import { abortError, pause } from "../deadline.js";
import type { CaptureFacts, CaptureMethod, CaptureOptions } from "../driver.js";
import { quote } from "./run-on-host.js";
import { abandonCopies, beginCopies, finishCopies, prepareCopies, writableDisks } from "./capture-disks.js";
import { cancel, queryPersistently, toProgress } from "./migrate.js";
import { QmpCommandError } from "./qmp-errors.js";
import type { EventListener } from "./qmp-events.js";
import { finalMigrationStates, type QueryMigrate } from "./qmp-types.js";
import { resumeVm } from "./run-state.js";
import type { QemuSession } from "./session.js";

/** Nothing else goes over the wire to the sink: as fast as it takes it. */
const UNLIMITED = 2 ** 40;
const POLL_MS = 100;
/** For undoing: after the caller's deadline, so it has one of its own. The stream is read to its end first. */
const RECOVERY_MS = 600_000;

/** See VmDriver.captureFacts. */
export async function captureFacts(session: QemuSession, signal: AbortSignal): Promise<CaptureFacts> {
  return { method: await methodOf(session, signal), disks: await writableDisks(session, signal) };
}

/** QEMU asks the kernel when the capability is set. */
async function methodOf(session: QemuSession, signal: AbortSignal): Promise<CaptureMethod> {
  try {
    await setCapabilities(session, "background-snapshot", signal);
    return "background-snapshot";
  } catch (error) {
    if (!(error instanceof QmpCommandError)) throw error;
    return "stop-and-save";
  } finally {
    await setCapabilities(session, "stop-and-save", signal);
  }
}

async function setCapabilities(
  session: QemuSession,
  method: CaptureMethod,
  signal: AbortSignal,
): Promise<void> {
  const known = await session.execute("query-migrate-capabilities", {}, signal);
  // A stream to a file has no way back, and a background snapshot allows none of the others.
  const wanted = {
    ...{ events: true, "return-path": false, "auto-converge": false },
    "background-snapshot": method === "background-snapshot",
  };
  const capabilities = Object.entries(wanted)
    .filter(([name]) => known.some((one) => one.capability === name))
    .map(([capability, state]) => ({ capability, state }));
  await session.execute("migrate-set-capabilities", { capabilities }, signal);
}

/** See VmDriver.capture. */
export async function captureVm(session: QemuSession, options: CaptureOptions): Promise<void> {
  const { running } = await session.execute("query-status", {}, options.signal);
  if (!running) throw new SymvirtError("refused", `${session.name} does not run: it cannot be captured`);
  try {
    await prepareCopies(session, options.disks, options.signal);
    await setCapabilities(session, options.method, options.signal);
    await session.execute("migrate-set-parameters", { "max-bandwidth": UNLIMITED }, options.signal);
    const events = await session.listen(["MIGRATION", "RESUME"], options.signal);
    try {
      await take(session, events, options);
    } finally {
      events.close();
    }
    await finishCopies(session, options.disks, options.signal);
    await setCapabilities(session, "stop-and-save", options.signal);
  } catch (failure) {
    await recover(session, failure);
    throw failure;
  }
}

async function take(session: QemuSession, events: EventListener, options: CaptureOptions): Promise<void> {
  const { signal, method, sink, disks } = options;
  const stopped = performance.now();
  const runs = () => options.onTaken(performance.now() - stopped);
  await session.execute("stop", {}, signal);
  await beginCopies(session, disks, signal);
  await session.execute("migrate", { uri: `exec:${readToTheEnd(sink)}` }, signal);
  let taken = false;
  for (;;) {
    const now = await session.execute("query-migrate", {}, signal);
    for (let event = events.poll(); event !== undefined; event = events.poll()) {
      if (event.name !== "RESUME" || taken) continue;
      taken = true;
      runs();
    }
    options.onProgress?.(toProgress(now));
    if (now.status !== undefined && finalMigrationStates.has(now.status)) {
      if (now.status !== "completed") throw failed(session, now);
      break;
    }
    await events.wake(signal, POLL_MS);
    if (signal.aborted) throw abortError(signal, `capture of ${session.name}`);
  }
  if (method === "background-snapshot" && taken) return;
  await resumeVm(session, signal, { evenIfMoved: true });
  if (!taken) runs();
}

/**
 * The command for QEMU: the sink in a session of its own, and after it whatever it left unread. QEMU waits for the
 * command in its main loop when the stream has ended, so that ends at once.
 */
function readToTheEnd(sink: string): string {
  const inner = `(\n${sink}\n)\nexec cat >/dev/null`;
  return `exec 3<&0\nsetsid sh -c ${quote(inner)} <&3 3<&- >/dev/null 2>&1 &\nexit 0`;
}

function failed(session: QemuSession, { status, "error-desc": words }: QueryMigrate): SymvirtError {
  const why = words ?? `it ended "${status}"`;
  return new SymvirtError("rolledBack", `the memory of ${session.name} could not be written: ${why}`, {
    hint: "look at the VMM's log",
  });
}

/** See VmDriver.abandonCapture. */
export async function abandonCapture(session: QemuSession, signal: AbortSignal): Promise<void> {
  if (await isBackground(session, signal)) await awaitEnd(session, signal);
  else await cancel(session, signal);
  await abandonCopies(session, signal);
  await setCapabilities(session, "stop-and-save", signal);
  await resumeVm(session, signal, { evenIfMoved: true });
}

async function isBackground(session: QemuSession, signal: AbortSignal): Promise<boolean> {
  const known = await session.execute("query-migrate-capabilities", {}, signal);
  return known.some(({ capability, state }) => capability === "background-snapshot" && state);
}

async function awaitEnd(session: QemuSession, signal: AbortSignal): Promise<void> {
  for (;;) {
    const { status = "none" } = await queryPersistently(session, signal);
    if (status === "none" || finalMigrationStates.has(status)) return;
    await pause(POLL_MS, signal);
    if (signal.aborted) throw abortError(signal, `end of the capture of ${session.name}: still ${status}`);
  }
}

async function recover(session: QemuSession, failure: unknown): Promise<void> {
  try {
    await abandonCapture(session, AbortSignal.timeout(RECOVERY_MS));
  } catch (error) {
    const words = (e: unknown) => (e instanceof Error ? e.message : String(e));
    throw new SymvirtError(
      error instanceof SymvirtError && error.exit === "unreachable" ? "unreachable" : "needsOperator",
      `${words(failure)}; and ${session.name} could not be made to run again: ${words(error)}`,
      { hint: "look with query-status, query-jobs and query-migrate, then `cont`", cause: failure },
    );
  }
}

/** See VmDriver.restore. */
export async function restoreVm(session: QemuSession, source: string, signal: AbortSignal): Promise<void> {
  const { status } = await session.execute("query-status", {}, signal);
  if (status !== "inmigrate")
    throw new SymvirtError("refused", `${session.name} is ${status}: a capture cannot be loaded into it`, {
      hint: "launch it with -incoming defer",
    });
  await session.execute("stop", {}, signal); // in state inmigrate: "do not start on arrival"
  await session.execute("migrate-incoming", { uri: `exec:${source}` }, signal);
  for (;;) {
    // A stream that cannot be loaded ends QEMU: the lost connection tells.
    const { status: now, "error-desc": words } = await session.execute("query-migrate", {}, signal);
    if (now === "completed") break;
    if (now === "failed")
      throw new SymvirtError(
        "rolledBack",
        `${session.name} cannot load the capture: ${words ?? "no reason given"}`,
      );
    await pause(POLL_MS, signal);
    if (signal.aborted) throw abortError(signal, `loading of ${session.name} ("${now ?? "not begun"}")`);
  }
  for (;;) {
    const run = await session.execute("query-status", {}, signal);
    if (run.status === "paused" || run.status === "prelaunch") return;
    if (run.status !== "inmigrate")
      throw new SymvirtError("internal", `${session.name} is ${run.status} after it was loaded`);
    await pause(POLL_MS, signal);
    if (signal.aborted) throw abortError(signal, `loading of ${session.name}: still "inmigrate"`);
  }
}
