/** Returns a function that runs what it is given at most once per `ms`: for logs a peer can provoke. */
export function atMostEvery(ms: number): (action: () => void) => void {
  let last = Number.NEGATIVE_INFINITY;
  return (action) => {
    const now = performance.now();
    if (now - last < ms) return;
    last = now;
    action();
  };
}
