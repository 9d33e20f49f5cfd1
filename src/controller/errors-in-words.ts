/** An error as one sentence with its hint, for the cause of a roll-back. */
import { SymvirtError } from "../errors.js";

export function sentence(error: unknown): string {
  if (error instanceof SymvirtError)
    return error.hint === undefined ? error.message : `${error.message} (${error.hint})`;
  return error instanceof Error ? error.message : String(error);
}
