import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { refusal, StoreWorld } from "../../test/support/checkpoint-world.js";
import type { Manifest } from "./manifest.js";
import type { CheckpointStore } from "./store.js";

let world: StoreWorld;
let store: CheckpointStore;
let path: string;
beforeEach(() => {
  world = new StoreWorld();
  ({ store, path } = world);
});
afterEach(() => world.close());

describe("what cannot be restarted is refused precisely", () => {
  it("an unknown one, and what is no id", () => {
    for (const id of ["20260101T000000Z", "../../etc", "", "\u001b[2J"])
      expect(refusal(() => store.read(id))).toMatchObject({ exit: "usage" });
    expect(refusal(() => store.read("\u001b[2J")).message).toBe(`there is no checkpoint "?[2J" in ${path}`);
    expect(store.list()).toEqual([]);
  });

  it("one of another cluster", () => {
    const { id } = world.made();
    const other = world.storeOf("other");
    const message = `checkpoint ${id} cannot be used here: it is of cluster "c", and this is "other"`;
    for (const work of [() => other.read(id), () => other.hold(id, "x"), () => other.remove(id)])
      expect(refusal(work)).toMatchObject({ exit: "refused", message });
    expect(other.list()).toMatchObject([{ state: "foreign" }]);
    expect(other.prune(1)).toEqual({ removed: [], kept: [], refused: [] });
    expect(store.read(id).id).toBe(id);
  });

  it("one of a newer symvirt", () => {
    const { id } = world.made();
    world.spoil(id, (m) => Object.assign(m, { version: 2, symvirt: "3.0.0", more: true }));
    expect(refusal(() => store.read(id))).toMatchObject({
      exit: "refused",
      message: `checkpoint ${id} cannot be read: symvirt 3.0.0 wrote it with schema version 2, and this one knows versions up to 1`,
    });
    expect(store.list()).toMatchObject([{ state: "newer" }]);
  });

  it.each<[string, (id: string) => void, string]>([
    ["a part of another length", (id) => writeFileSync(join(path, id, "vm1.ram.zst"), "x"), "has 1 bytes"],
    ["a part that is gone", (id) => rmSync(join(path, id, "vm1.ram.zst")), "vm1.ram.zst is not there"],
    ["a manifest that is no JSON", (id) => writeFileSync(join(path, id, "manifest.json"), "{"), "not JSON"],
    [
      "a manifest of something else",
      (id) => writeFileSync(join(path, id, "manifest.json"), "{}"),
      "not that of a",
    ],
    [
      "an unknown key",
      (id) => world.spoil(id, (m) => Object.assign(m, { x: 1 })),
      "its manifest is wrong at the top",
    ],
    [
      "a part outside its folder",
      (id) => world.spoil(id, (m) => Object.assign((m as unknown as Manifest).vms[0]!.ram, { file: "../x" })),
      "its manifest is wrong at vms.0.ram.file: a file name without folders",
    ],
    [
      "another one's manifest",
      (id) => world.spoil(id, (m) => Object.assign(m, { id: "20260101T000000Z" })),
      "its manifest is that of 20260101T000000Z",
    ],
  ])("%s", (_, damage, text) => {
    const { id } = world.made();
    damage(id);
    const error = refusal(() => store.read(id));
    expect(error.exit).toBe("refused");
    expect(error.message).toContain(`checkpoint ${id} is damaged: `);
    expect(error.message).toContain(text);
    expect(store.list()).toMatchObject([{ state: "damaged" }]);
    expect(store.prune(1).removed).toEqual([]);
    store.remove(id);
    expect(store.list()).toEqual([]);
  });
});
