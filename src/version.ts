import { readFileSync } from "node:fs";

/** Version of this symvirt, e.g. "0.1.0". */
export function symvirtVersion(): string {
  const manifest: unknown = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8"));
  return String((manifest as { version?: unknown }).version);
}
