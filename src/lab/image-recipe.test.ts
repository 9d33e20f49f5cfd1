import { describe, expect, it } from "vitest";
import { type ImageRecipe, pickArchive, recipeHash } from "./image-recipe.js";

const lines = [
  "http://a.example/security/|bookworm-security|main|/k/s.gpg",
  "http://a.example/debian/|bookworm|contrib|/k/d.gpg",
  "http://a.example/debian/|bookworm|main|/k/d.gpg",
  "http://b.example/debian/|bookworm|main|",
];

describe("pickArchive", () => {
  it("takes the first main archive of the suite, without its trailing slash", () => {
    expect(pickArchive(lines, "bookworm")).toEqual({
      mirror: "http://a.example/debian",
      keyring: "/k/d.gpg",
    });
  });

  it("takes apt's unreplaced placeholder for no keyring", () => {
    expect(pickArchive(["https://a.example|trixie|main|$(SIGNED_BY)"], "trixie")).toEqual({
      mirror: "https://a.example",
      keyring: undefined,
    });
  });

  it("finds nothing where debootstrap could not fetch", () => {
    expect(pickArchive(["cdrom:[Debian]/|bookworm|main|"], "bookworm")).toBeUndefined();
    expect(pickArchive(lines, "sid")).toBeUndefined();
  });
});

describe("recipeHash", () => {
  const recipe: ImageRecipe = {
    format: 1,
    archive: { suite: "bookworm", mirror: "http://a.example", keyring: "/k", proxy: undefined },
    packages: ["kmod", "iproute2"],
    rootModules: ["ext4"],
    keptModules: ["fs/ext4/*"],
    guest: { boot: "#!/bin/sh\n" },
  };

  it("changes with whatever is in the image", () => {
    const hashes = [
      recipe,
      { ...recipe, format: 2 },
      { ...recipe, packages: ["kmod"] },
      { ...recipe, guest: { boot: "#!/bin/sh\ntrue\n" } },
      { ...recipe, guest: { ...recipe.guest, more: "" } },
      { ...recipe, archive: { ...recipe.archive, suite: "trixie" } },
      { ...recipe, rootModules: [] },
      { ...recipe, keptModules: [] },
    ].map(recipeHash);
    expect(new Set(hashes).size).toBe(hashes.length);
    for (const hash of hashes) expect(hash).toMatch(/^[0-9a-f]{16}$/);
  });

  it("does not change with how the archive is reached", () => {
    const other = { ...recipe, archive: { ...recipe.archive, proxy: "http://p:3128", keyring: undefined } };
    expect(recipeHash(other)).toBe(recipeHash(recipe));
  });
});
