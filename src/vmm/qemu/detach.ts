/** Hot-unplug of a card: ask until it is gone, and say what QEMU answered when it is not. */
import { SymvirtError } from "../../errors.js";
import { abortError, pause } from "../deadline.js";
import { QmpCommandError } from "./qmp-errors.js";
import type { EventListener } from "./qmp-events.js";
import { qmpEvents } from "./qmp-types.js";
import { isPresent } from "./qom-cards.js";
import type { QemuSession } from "./session.js";

/** The event can be missed (asked for by an earlier controller, say), so the object tree is read as well. */
const POLL_MS = 250;
/** A refused request ("busy": just added, or the guest boots) is repeated after this, doubled up to the limit. */
const FIRST_RETRY_MS = 250;
const LAST_RETRY_MS = 4_000;
/**
 * An accepted request is repeated only after this: a pciehp guest blinks for 5 s before it lets go, and a
 * second press of the button within them means the opposite. One lost during boot must be repeated.
 */
const ACCEPTED_RETRY_MS = 6_000;
/** Between leaving the object tree and DEVICE_DELETED QEMU still holds the card (a vfio group, its id). */
const RELEASE_MS = 2_000;
/**
 * A request QEMU has taken cannot be taken back: whoever gives up waits this long for it to be carried
 * out (a pciehp guest blinks for 5 s first). Without that the card "still present" of this moment is
 * gone in the next, after the caller has found nothing to undo (seen: a job left without its card).
 */
export const SETTLE_MS = 7_000;

/**
 * Takes the card `tag` out. An absent card is success. Resolves when QEMU has released it.
 *
 * On abort it throws ("deadline", …) with QEMU's last refusal, but not before a request that QEMU has
 * taken is carried out or `settleMs` have passed: look at `inspect` then to see what is so.
 */
export async function detachCard(
  session: QemuSession,
  tag: string,
  signal: AbortSignal,
  settleMs = SETTLE_MS,
): Promise<void> {
  const began = performance.now();
  let accepted = 0;
  let refusal: string | undefined;
  let deleted: EventListener | undefined;
  try {
    // Before the first request, so that the event cannot be missed.
    deleted = await session.listen(["DEVICE_DELETED", "DEVICE_UNPLUG_GUEST_ERROR"], signal, ofDevice(tag));
    if (!(await isPresent(session, tag, signal))) return;
    let backOff = FIRST_RETRY_MS;
    for (;;) {
      let waitMs = ACCEPTED_RETRY_MS;
      const refused = await ask(session, tag, signal);
      if (refused === undefined) accepted++;
      else {
        refusal = refused;
        waitMs = backOff;
        backOff = Math.min(backOff * 2, LAST_RETRY_MS);
      }
      const outcome = await awaitRemoval(session, tag, deleted, waitMs, signal);
      if (outcome === "gone") return;
      if (outcome === "guest-refused") {
        refusal = "the guest refused to let go";
        // The guest's answer comes at once; without a pause it would be asked in a tight loop.
        await pause(backOff, signal);
        backOff = Math.min(backOff * 2, LAST_RETRY_MS);
      }
      if (signal.aborted) throw abortError(signal, `detach of ${tag}`);
    }
  } catch (error) {
    if (!signal.aborted) throw error;
    const elapsed = performance.now() - began;
    if (accepted > 0 && deleted !== undefined && (await settles(session, tag, deleted, settleMs)))
      throw abortError(signal, `detach of ${tag}: taken out`);
    const said = refusal ?? (accepted === 0 ? "none" : `none, QEMU took the request and waits for the guest`);
    throw stillPresent(session, tag, elapsed, said, signal, error);
  } finally {
    deleted?.close();
  }
}

/** After the caller gave up: true when the card has gone all the same. */
async function settles(
  session: QemuSession,
  tag: string,
  deleted: EventListener,
  ms: number,
): Promise<boolean> {
  try {
    return (await awaitRemoval(session, tag, deleted, ms, AbortSignal.timeout(ms + RELEASE_MS))) === "gone";
  } catch (error) {
    // No QMP any more: what is so will be found out by whoever undoes.
    if (error instanceof SymvirtError) return false;
    throw error;
  }
}

/** One device_del: undefined when accepted (or the device is already gone), else QEMU's refusal. */
async function ask(session: QemuSession, tag: string, signal: AbortSignal): Promise<string | undefined> {
  try {
    await session.execute("device_del", { id: tag }, signal);
    return undefined;
  } catch (error) {
    if (!(error instanceof QmpCommandError)) throw error;
    if (error.errorClass === "DeviceNotFound") return undefined;
    return error.description;
  }
}

async function awaitRemoval(
  session: QemuSession,
  tag: string,
  deleted: EventListener,
  ms: number,
  signal: AbortSignal,
): Promise<"gone" | "guest-refused" | "present"> {
  const until = performance.now() + ms;
  while (performance.now() < until && !signal.aborted) {
    await deleted.wake(signal, POLL_MS);
    for (let event = deleted.poll(); event !== undefined; event = deleted.poll()) {
      if (event.name === "DEVICE_DELETED") return "gone";
      if (event.name === "DEVICE_UNPLUG_GUEST_ERROR") return "guest-refused";
    }
    if (!(await isPresent(session, tag, signal))) {
      await deleted.wake(signal, RELEASE_MS);
      return "gone";
    }
  }
  return "present";
}

/** Accepts events about this tag only; a guest's other devices must not end the wait. */
function ofDevice(tag: string) {
  return (event: { data: unknown }): boolean => {
    const parsed = qmpEvents.DEVICE_DELETED.safeParse(event.data);
    return parsed.success && parsed.data.device === tag;
  };
}

function stillPresent(
  session: QemuSession,
  tag: string,
  elapsedMs: number,
  refusal: string,
  signal: AbortSignal,
  cause: unknown,
): SymvirtError {
  const exit = abortError(signal, "").exit;
  const seconds = (elapsedMs / 1000).toFixed(elapsedMs < 10_000 ? 1 : 0);
  return new SymvirtError(
    exit,
    `detach: ${tag} of ${session.name} still present after ${seconds} s; last refusal: ${refusal}`,
    {
      hint: "the guest must run and support PCIe hot-plug (pciehp or ACPI), and nothing in it may hold the card",
      cause,
    },
  );
}
