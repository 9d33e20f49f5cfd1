/** A reader that has gone (`| head`, a closed terminal) is no reason to leave a lab behind. */
export function keepTalking(): void {
  for (const stream of [process.stdout, process.stderr]) stream.on("error", () => undefined);
}
