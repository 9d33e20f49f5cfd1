/**
 * The policies' clock: milliseconds since the epoch, as the wall clock said when this process began, and steady from
 * then on. A wall clock that is set back would put the next checkpoint off by as much.
 */
export const steadyNow = (): number => performance.timeOrigin + performance.now();
