import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Access, readToken } from "./access.js";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "symvirt-access-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

function file(text: string, mode = 0o600): string {
  const path = join(folder, "token");
  writeFileSync(path, text, { mode });
  chmodSync(path, mode);
  return path;
}

describe("tokens", () => {
  it("are read from a file that only we can read", () => {
    expect(readToken(file("0123456789abcdef\n"))).toBe("0123456789abcdef");
  });

  it.each([
    [() => file("0123456789abcdef", 0o640), "can be read by others"],
    [() => file("0123456789abcdef", 0o604), "can be read by others"],
    [() => file("short"), "must hold one token"],
    [() => file("two words of a token"), "must hold one token"],
    [() => file(""), "must hold one token"],
    [() => join(folder, "none"), "cannot read the token file"],
  ])("case %#: refused with what to do", (make, text) => {
    expect(() => readToken(make())).toThrow(
      expect.objectContaining({ exit: "usage", message: expect.stringContaining(text) }),
    );
  });

  it("allow their scope, and nothing else does", () => {
    const access = new Access().add("0123456789abcdef", "all").add("fedcba9876543210", "alerts");
    expect(access.scopeOf("Bearer 0123456789abcdef")).toBe("all");
    expect(access.scopeOf("bearer fedcba9876543210")).toBe("alerts");
    for (const wrong of [
      undefined,
      "",
      "Bearer",
      "Bearer ",
      "Bearer x",
      "0123456789abcdef",
      "Bearer 0123456789abcdef x",
    ])
      expect(access.scopeOf(wrong)).toBeUndefined();
    expect(new Access().scopeOf("Bearer ")).toBeUndefined();
  });
});
