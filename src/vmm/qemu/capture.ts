/**
 * Memory, devices and disks of one VM at one instant, while it runs on. A background snapshot is begun and held back
 * (capture-gate.ts); then the VM is stopped, the copies of its disks begin, and the snapshot is let go, which makes
 * the VM run again once its memory is write-protected: all that is of the time between STOP and RESUME. A QEMU that
 * cannot be held begins its snapshot with the VM stopped. Without write-protection by userfaultfd in the host the VM
 * stands still until its memory is written.
 *
 * A background snapshot must not fail and must not be cancelled once it has begun: QEMU (7.2 at least) then leaves
 * the memory write-protected, and the VM hangs at its next write. So whatever becomes of the sink, something reads
 * the stream to its end, and who gives up waits for that end.
 */
import { SymvirtError } from "../../errors.js";
import { abortError, pause } from "../deadline.js";
import {
  CAPTURE_RECOVERY_MS,
  type CaptureFacts,
  type CaptureMethod,
  type CaptureOptions,
} from "../driver.js";
import { quote } from "./run-on-host.js";
import {
  abandonCopies,
  beginCopies,
  finishCopies,
  hurryCopies,
  prepareCopies,
  writableDisks,
} from "./capture-disks.js";
import { canBeHeld, heldCommand, unwanted, walkMs } from "./capture-gate.js";
import { cancel, queryPersistently, toProgress } from "./migrate.js";
import { QmpCommandError } from "./qmp-errors.js";
import type { EventListener } from "./qmp-events.js";
import { finalMigrationStates, type QueryMigrate } from "./qmp-types.js";
import { resumeVm } from "./run-state.js";
import type { QemuSession } from "./session.js";

/** Nothing else goes over the wire to the sink: as fast as it takes it. */
const UNLIMITED = 2 ** 40;
const POLL_MS = 100;
const WALK_POLL_MS = 50;
/** For letting go of one that is held; its reader does so by itself later. */
const UNHOLD_MS = 5000;

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
  const { signal, method, disks } = options;
  const { running } = await session.execute("query-status", {}, signal);
  if (!running) throw new SymvirtError("refused", `${session.name} does not run: it cannot be captured`);
  let gate: string | undefined;
  try {
    await prepareCopies(session, disks, signal);
    await setCapabilities(session, method, signal);
    await session.execute("migrate-set-parameters", { "max-bandwidth": UNLIMITED }, signal);
    const events = await session.listen(["MIGRATION", "RESUME"], signal);
    try {
      if (method === "background-snapshot") gate = await hold(session, events, options);
      options.onReady();
      await waitFor(options.go, signal, `capture of ${session.name}`);
      await take(session, events, options, gate);
    } finally {
      events.close();
    }
    await finishCopies(session, disks, signal);
    await setCapabilities(session, "stop-and-save", signal);
  } catch (failure) {
    await recover(session, options.gate, failure);
    throw failure;
  }
}

/** Begins a snapshot that waits at the gate returned. Undefined: this QEMU cannot be held, or was too fast. */
async function hold(
  session: QemuSession,
  events: EventListener,
  options: CaptureOptions,
): Promise<string | undefined> {
  const { signal, sink, gate } = options;
  if (!canBeHeld(await session.execute("query-version", {}, signal))) return undefined;
  const memory = await session.execute("query-memory-size-summary", {}, signal);
  const ms = walkMs(memory["base-memory"] + (memory["plugged-memory"] ?? 0));
  try {
    // Aborted while it is answered it has begun all the same.
    await session.execute("migrate", { uri: `exec:${heldCommand(sink, gate)}` }, signal);
    const until = performance.now() + ms;
    while (performance.now() < until && !signal.aborted) await pause(WALK_POLL_MS, signal);
    if (signal.aborted) throw abortError(signal, `capture of ${session.name}`);
  } catch (failure) {
    await letGo(session, unwanted(gate));
    throw failure;
  }
  if (!hasResumed(events)) return gate;
  // Its reader has seen so too and throws it away.
  await awaitEnd(session, signal);
  return undefined;
}

function hasResumed(events: EventListener): boolean {
  let resumed = false;
  for (let event = events.poll(); event !== undefined; event = events.poll())
    resumed ||= event.name === "RESUME";
  return resumed;
}

/** Makes the file that the gate waits for: the one command of QMP that makes one at once. */
async function unhold(session: QemuSession, file: string, signal: AbortSignal): Promise<void> {
  await session.execute("pmemsave", { val: 0, size: 1, filename: file }, signal);
}

/**
 * One that is held goes on at once, and what it writes is thrown away; without this it does so after a while. For one
 * that has gone on already the file means nothing.
 */
async function letGo(session: QemuSession, file: string): Promise<void> {
  await unhold(session, file, AbortSignal.timeout(UNHOLD_MS)).catch(() => undefined);
}

async function waitFor(go: Promise<void>, signal: AbortSignal, what: string): Promise<void> {
  let stop: () => void = () => undefined;
  const aborted = new Promise<void>((resolve) => (stop = resolve));
  signal.addEventListener("abort", stop, { once: true });
  if (signal.aborted) stop();
  try {
    await Promise.race([go, aborted]);
  } finally {
    signal.removeEventListener("abort", stop);
  }
  if (signal.aborted) throw abortError(signal, what);
}

async function take(
  session: QemuSession,
  events: EventListener,
  options: CaptureOptions,
  gate: string | undefined,
): Promise<void> {
  const { signal, method, sink, disks } = options;
  const stopped = performance.now();
  const runs = () => options.onTaken(performance.now() - stopped);
  await session.execute("stop", {}, signal);
  await beginCopies(session, disks, signal);
  if (gate !== undefined) {
    // Events and replies are in order: if it has not run again by now, it does so after the copies began.
    if (hasResumed(events))
      throw new SymvirtError(
        "rolledBack",
        `${session.name} was captured before its disks could be: try again`,
      );
    await unhold(session, gate, signal);
  } else await session.execute("migrate", { uri: `exec:${readToTheEnd(sink)}` }, signal);
  if (method === "stop-and-save") await hurryCopies(session, disks, signal);
  let taken = false;
  for (;;) {
    for (let event = events.poll(); event !== undefined; event = events.poll()) {
      if (event.name !== "RESUME" || taken) continue;
      taken = true;
      runs();
      await hurryCopies(session, disks, signal);
    }
    const now = await session.execute("query-migrate", {}, signal);
    options.onProgress?.(toProgress(now));
    if (now.status !== undefined && finalMigrationStates.has(now.status)) {
      if (now.status !== "completed") throw failed(session, now);
      break;
    }
    await events.wake(signal, POLL_MS);
    if (signal.aborted) throw abortError(signal, `capture of ${session.name}`);
  }
  if (method === "background-snapshot" && (taken || hasResumed(events))) {
    if (taken) return;
    runs();
    return await hurryCopies(session, disks, signal);
  }
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
export async function abandonCapture(session: QemuSession, gate: string, signal: AbortSignal): Promise<void> {
  if (await isBackground(session, signal)) {
    await letGo(session, unwanted(gate));
    await awaitEnd(session, signal);
  } else await cancel(session, signal);
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

async function recover(session: QemuSession, gate: string, failure: unknown): Promise<void> {
  try {
    await abandonCapture(session, gate, AbortSignal.timeout(CAPTURE_RECOVERY_MS));
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
