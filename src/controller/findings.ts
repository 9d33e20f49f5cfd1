/** What a check has found: a reason to refuse, or something worth knowing. */
import { type ExitCodeName, SymvirtError } from "../errors.js";

export interface Finding {
  /** "unreachable" and "refused" stop an operation, "note" does not. */
  level: "refused" | "unreachable" | "note";
  text: string;
  hint?: string;
}

export class Findings {
  readonly list: Finding[] = [];

  refuse(text: string, hint?: string): void {
    this.list.push({ level: "refused", text, ...(hint === undefined ? {} : { hint }) });
  }

  unreachable(text: string, hint?: string): void {
    this.list.push({ level: "unreachable", text, ...(hint === undefined ? {} : { hint }) });
  }

  note(text: string, hint?: string): void {
    this.list.push({ level: "note", text, ...(hint === undefined ? {} : { hint }) });
  }

  /** An error met while checking, as a finding. Anything but a SymvirtError is a defect and is thrown on. */
  take(error: unknown): void {
    if (!(error instanceof SymvirtError)) throw error;
    const level = error.exit === "refused" ? "refused" : "unreachable";
    this.list.push({ level, text: error.message, ...(error.hint === undefined ? {} : { hint: error.hint }) });
  }

  refusals(): Finding[] {
    return this.list.filter((f) => f.level !== "note");
  }

  /** All refusals as one error; undefined when there are none. */
  error(what: string): SymvirtError | undefined {
    const refusals = this.refusals();
    const [first] = refusals;
    if (first === undefined) return undefined;
    const exit: ExitCodeName = refusals.every((f) => f.level === "unreachable") ? "unreachable" : "refused";
    if (refusals.length === 1)
      return new SymvirtError(
        exit,
        `${what}: ${first.text}`,
        first.hint === undefined ? {} : { hint: first.hint },
      );
    const lines = refusals.map((f) => `  - ${f.text}${f.hint === undefined ? "" : ` (${f.hint})`}`);
    return new SymvirtError(exit, `${what}, for ${refusals.length} reasons\n${lines.join("\n")}`);
  }
}
