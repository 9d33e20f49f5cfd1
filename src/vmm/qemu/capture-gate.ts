/**
 * Holds a background snapshot back after its walk over all pages, which grows with memory, and before its instant.
 *
 * QEMU 7.2 (`bg_migration_thread`, migration/migration.c) first touches every page, with the VM running and without
 * its main lock; then it flushes the stream's head; then it takes the lock and the instant passes. So a pipe that is
 * full when the head comes holds it right between the two, and what has to be done at the instant (stop the VM, begin
 * the copies of its disks) is done then. From 8.x on the head is written under the main lock, where a full pipe would
 * hold all of QEMU: there the VM is stopped first, and the walk is part of its pause.
 *
 * The pipe is filled by the stream's own reader, as nobody else has it. If it comes too late, the head is in the
 * pipe before it is full, and the instant passes by itself. The reader knows, as its filling does not end then, and must
 * begin to throw the stream away at once: QEMU's main loop may wait by then for a page that is protected until it is
 * read. The controller sees the VM's RESUME.
 */
import type { QmpReply } from "./qmp-types.js";
import { quote } from "./run-on-host.js";

/** The reader lets go by itself after this, and keeps nothing: a controller that was killed must not hold QEMU. */
const PATIENCE_S = 90;
/** A pipe of Linux (16 pages). One of another size is taken for a late reader's. */
const PIPE_BYTES = 65_536;
/** A reader that could not fill the pipe within this was too late. */
const FILL_S = 0.3;

/** Whether this QEMU writes the head without its main lock, as read in its source. */
export function canBeHeld({ qemu: { major, minor } }: QmpReply<"query-version">): boolean {
  return major === 7 && minor === 2;
}

/** How long QEMU is given for its walk. A longer one costs pause, nothing else. */
export function walkMs(memoryBytes: number): number {
  return Math.min(1000 + 500 * (memoryBytes / 2 ** 30), 20_000);
}

/** The file whose appearance says that the stream is not wanted. */
export const unwanted = (gate: string): string => `${gate}.no`;

/**
 * The command for `exec:`: holds QEMU until the file `gate` is there and gives what comes then to `sink`; throws it
 * away if `unwanted(gate)` is there, if nothing is in time, and if QEMU was faster. The sink is begun while QEMU is
 * held, or the VM's first writes would wait for it, and gets an empty stream if nothing is kept. QEMU waits for the
 * command in its main loop when the stream has ended, so that ends at once and a process of its own goes on.
 */
export function heldCommand(sink: string, gate: string): string {
  const full = `${gate}.full`;
  const inner = `
n=0
while [ ! -e ${quote(full)} ]; do
  [ $n -lt ${FILL_S * 100} ] || exec cat >/dev/null
  sleep 0.01
  n=$((n + 1))
done
rm -f ${quote(full)}
exec 4<&0
{
  n=0
  while [ ! -e ${quote(gate)} ] && [ ! -e ${quote(unwanted(gate))} ] && [ $n -lt ${PATIENCE_S * 100} ]; do
    sleep 0.01
    n=$((n + 1))
  done
  keep=0
  [ -e ${quote(gate)} ] && [ ! -e ${quote(unwanted(gate))} ] && keep=1
  dd bs=${PIPE_BYTES} count=1 iflag=fullblock <&4 >/dev/null 2>&1 || keep=0
  [ $keep = 0 ] || cat <&4
  rm -f ${quote(gate)} ${quote(unwanted(gate))}
  # The sink sees the end; what it left is read all the same.
  exec cat <&4 >/dev/null
} | (
exec 4<&-
${sink}
)`;
  // By what the shell has built in, and before anything else: QEMU is walking.
  return `exec 3<&0
{ printf '%${PIPE_BYTES}s' '' >/dev/fd/3 && : >${quote(full)}; } 2>/dev/null &
setsid sh -c ${quote(inner)} <&3 3<&- >/dev/null 2>&1 &
exit 0`;
}
