/** Who may do what: bearer tokens from files that only their owner can read. */
import { createHash, timingSafeEqual } from "node:crypto";
import { readFileSync, statSync } from "node:fs";
import { SymvirtError } from "../errors.js";

/** "alerts": nothing but POST /v1/alerts, for Alertmanager. */
export type Scope = "all" | "alerts";

const TOKEN = /^[\x21-\x7e]{16,512}$/;

/** Reads a token. Throws "usage" unless the file is ours, closed to others, and holds one token of 16 to 512 characters. */
export function readToken(path: string): string {
  const make = `make one with: (umask 077; openssl rand -hex 32 > ${path})`;
  let text: string;
  try {
    const { uid, mode } = statSync(path);
    const own = process.getuid?.();
    // root may read the token of the server's own user.
    if (uid !== own && own !== 0)
      throw new SymvirtError("usage", `the token file ${path} belongs to user ${uid}, not to us`, {
        hint: make,
      });
    if ((mode & 0o077) !== 0)
      throw new SymvirtError("usage", `the token file ${path} can be read by others`, {
        hint: `chmod 600 ${path}`,
      });
    text = readFileSync(path, "utf8").trim();
  } catch (cause) {
    if (cause instanceof SymvirtError) throw cause;
    const code = (cause as NodeJS.ErrnoException).code ?? String(cause);
    throw new SymvirtError("usage", `cannot read the token file ${path} (${code})`, { hint: make, cause });
  }
  if (TOKEN.test(text)) return text;
  throw new SymvirtError("usage", `the token file ${path} must hold one token of 16 to 512 characters`, {
    hint: make,
  });
}

const digest = (text: string): Buffer => createHash("sha256").update(text).digest();

/** The tokens a server knows. */
export class Access {
  readonly #tokens: { digest: Buffer; scope: Scope }[] = [];

  add(token: string, scope: Scope): this {
    this.#tokens.push({ digest: digest(token), scope });
    return this;
  }

  get knowsAny(): boolean {
    return this.#tokens.length > 0;
  }

  /** What the value of an Authorization header allows; undefined: nothing. Takes the same time for every token. */
  scopeOf(header: string | undefined): Scope | undefined {
    const match = /^Bearer ([\x21-\x7e]{1,512})$/i.exec(header ?? "");
    const given = digest(match?.[1] ?? "");
    let scope: Scope | undefined;
    for (const known of this.#tokens) if (timingSafeEqual(known.digest, given)) scope = known.scope;
    return match === null ? undefined : scope;
  }
}
