/** Whether a VM's command in the cluster file is still that of its checkpoint. Pure. */

const PLACEHOLDER = /\{(vm|host|runtime)\}/g;
const literal = (text: string): string => text.replaceAll(/[.*+?^${}()|[\]\\]/g, "\\$&");

/**
 * The first word that differs, undefined when none does. `{vm}` and `{host}` are known; `{runtime}` is whatever folder
 * the host had then, the same in all words.
 */
export function commandDifference(
  template: readonly string[],
  argv: readonly string[],
  { vm, host }: { vm: string; host: string },
): { was: string; is: string } | undefined {
  let runtime: string | undefined;
  for (let i = 0; i < Math.max(template.length, argv.length); i++) {
    const [is, was] = [template[i] ?? "", argv[i] ?? ""];
    let known = runtime;
    const pattern = is
      .split(PLACEHOLDER)
      .map((piece, odd) => {
        if (odd % 2 === 0) return literal(piece);
        if (piece !== "runtime") return literal(piece === "vm" ? vm : host);
        if (known !== undefined) return literal(known);
        known = "";
        return "(/.*)";
      })
      .join("");
    const match = new RegExp(`^${pattern}$`, "s").exec(was);
    if (match === null) return { was, is };
    runtime ??= match[1];
  }
  return undefined;
}
