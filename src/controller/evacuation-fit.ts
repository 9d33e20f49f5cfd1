/** Which VM goes to which host: the search behind an evacuation's plan. Pure. */

export interface Leaver {
  vm: string;
  /** For each card it must get: the driver the new one must have. */
  needs: readonly string[];
  memoryBytes: number;
}

export interface Room {
  host: string;
  /** Drivers of its free cards. */
  cards: readonly string[];
  memoryBytes: number;
}

/** Combinations that are tried before the search gives up: far more than any real case needs. */
const MAX_TRIES = 100_000;

/** Takes cards of these drivers away; undefined when there are not enough. */
function without(cards: readonly string[], needs: readonly string[]): string[] | undefined {
  const left = [...cards];
  for (const driver of needs) {
    const at = left.indexOf(driver);
    if (at < 0) return undefined;
    left.splice(at, 1);
  }
  return left;
}

/** What the host has left once the VM is there; undefined when it does not fit. */
function after(room: Room, leaver: Leaver): Room | undefined {
  const cards = without(room.cards, leaver.needs);
  const memoryBytes = room.memoryBytes - leaver.memoryBytes;
  return cards === undefined || memoryBytes < 0 ? undefined : { ...room, cards, memoryBytes };
}

/** Why one VM does not fit on one host, both alone; undefined when it does. */
export function whyNot(leaver: Leaver, room: Room): string | undefined {
  if (without(room.cards, leaver.needs) === undefined) {
    const offered = room.cards.length === 0 ? "none" : room.cards.join(", ");
    return `${room.host} has no free ${leaver.needs.join(" and ")} card (free: ${offered})`;
  }
  const mib = (bytes: number) => Math.round(bytes / 2 ** 20);
  if (room.memoryBytes < leaver.memoryBytes)
    return `${room.host} has ${mib(room.memoryBytes)} MiB of memory free and ${leaver.vm} needs ${mib(leaver.memoryBytes)}`;
  return undefined;
}

/**
 * A host for every VM, or undefined when there is no such choice. Of the hosts on which a VM fits the one with the
 * most free memory comes first, or, with `inOrder`, the first of the list.
 */
export function fit(
  leavers: readonly Leaver[],
  rooms: readonly Room[],
  options: { inOrder?: boolean } = {},
): Map<string, string> | undefined {
  // Who has the fewest hosts to choose from chooses first.
  const choices = (l: Leaver) => rooms.filter((r) => whyNot(l, r) === undefined).length;
  const ordered = leavers
    .map((leaver) => ({ leaver, choices: choices(leaver) }))
    .sort((a, b) => a.choices - b.choices)
    .map(({ leaver }) => leaver);
  let tries = 0;
  const place = (at: number, left: readonly Room[]): Map<string, string> | undefined => {
    const leaver = ordered[at];
    if (leaver === undefined) return new Map();
    const ranked = options.inOrder === true ? left : [...left].sort((a, b) => b.memoryBytes - a.memoryBytes);
    for (const room of ranked) {
      const then = after(room, leaver);
      if (then === undefined || ++tries > MAX_TRIES) continue;
      const rest = place(
        at + 1,
        left.map((r) => (r === room ? then : r)),
      );
      if (rest !== undefined) return rest.set(leaver.vm, room.host);
    }
    return undefined;
  };
  return place(0, rooms);
}
