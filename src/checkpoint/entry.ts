/** One folder of the store: what it is, told from its manifest and the sizes of its files. */
import { lstatSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { plainText } from "../controller/plain-text.js";
import { SymvirtError } from "../errors.js";
import { Holds, holderText } from "./holds.js";
import { isCheckpointId, MANIFEST_VERSION, type Manifest, manifest, type Part, partsOf } from "./manifest.js";

export type CheckpointState =
  /** Manifest and all parts are there, with their sizes (their hashes: `verify`). */
  | "complete"
  /** It has a manifest, but that or a part is not as it was written. */
  | "damaged"
  /** Of another cluster. */
  | "foreign"
  /** Written by a newer symvirt, with a schema this one does not know. */
  | "newer"
  /** No manifest yet; its writer lives. */
  | "writing"
  /** No manifest, and never will have: its writer is dead. The next `sweep` removes it. */
  | "partial";

export interface CheckpointEntry {
  id: string;
  state: CheckpointState;
  /** One sentence without a period: what is wrong, or who writes it; empty when complete. */
  trouble: string;
  /** Wherever it could be read: also of a foreign checkpoint and of one with a damaged part. */
  manifest: Manifest | undefined;
  /** What the folder's files take. */
  storedBytes: number;
  /** Who uses it now: "verify (pid 12)", "vm1 runs from it". */
  users: string[];
}

const LARGEST_MANIFEST = 16 * 2 ** 20;
/** What every version of the schema has. */
const anyManifest = z.object({
  kind: z.literal("symvirt-checkpoint"),
  version: z.number().int().min(1),
  symvirt: z.string(),
  cluster: z.string(),
});

export const manifestOf = (store: string, id: string): string => join(store, id, "manifest.json");

/** Ids of all folders of the store, oldest first. */
export function checkpointIds(store: string): string[] {
  try {
    const folders = readdirSync(store, { withFileTypes: true }).filter((entry) => entry.isDirectory());
    return folders
      .map((entry) => entry.name)
      .filter(isCheckpointId)
      .sort();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw error;
  }
}

/** What the folder of this id is. Throws "usage" when there is none. */
export function readEntry(store: string, cluster: string, id: string): CheckpointEntry {
  if (!isCheckpointId(id) || statSync(join(store, id), { throwIfNoEntry: false })?.isDirectory() !== true)
    throw new SymvirtError("usage", `there is no checkpoint "${plainText(id, 80)}" in ${store}`, {
      hint: "`symvirt checkpoints` lists them",
    });
  const holders = new Holds(store, id).holders();
  const base = { id, storedBytes: folderBytes(join(store, id)), users: holders.map(holderText) };
  const text = readManifest(manifestOf(store, id));
  if (text !== undefined) return { ...base, ...judge(store, cluster, id, text) };
  const writer = holders.find((holder) => holder.kind === "write");
  return writer === undefined
    ? { ...base, state: "partial", trouble: "its writer ended before it was complete", manifest: undefined }
    : { ...base, state: "writing", trouble: `${holderText(writer)} writes it`, manifest: undefined };
}

type Judgement = Pick<CheckpointEntry, "state" | "trouble" | "manifest">;

function judge(store: string, cluster: string, id: string, text: string): Judgement {
  const damaged = (trouble: string, read?: Manifest): Judgement => ({
    state: "damaged",
    trouble,
    manifest: read,
  });
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    return damaged("its manifest is not JSON");
  }
  const any = anyManifest.safeParse(json);
  if (!any.success) return damaged("its manifest is not that of a checkpoint");
  if (any.data.version > MANIFEST_VERSION) {
    const trouble = `symvirt ${plainText(any.data.symvirt, 40)} wrote it with schema version ${any.data.version}, and this one knows versions up to ${MANIFEST_VERSION}`;
    return { state: "newer", trouble, manifest: undefined };
  }
  const parsed = manifest.safeParse(json);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    return damaged(
      `its manifest is wrong at ${issue?.path.join(".") || "the top"}: ${issue?.message ?? "?"}`,
    );
  }
  const { data } = parsed;
  if (data.id !== id) return damaged(`its manifest is that of ${data.id}`, data);
  if (data.cluster !== cluster)
    return {
      state: "foreign",
      trouble: `it is of cluster "${data.cluster}", and this is "${cluster}"`,
      manifest: data,
    };
  const wrong = partsOf(data)
    .map((part) => sizeTrouble(join(store, id), part))
    .find((trouble) => trouble !== "");
  return wrong === undefined ? { state: "complete", trouble: "", manifest: data } : damaged(wrong, data);
}

/** What is wrong with a part's file as far as its size tells; empty when nothing. */
export function sizeTrouble(folder: string, { file, storedBytes }: Part): string {
  const found = lstatSync(join(folder, file), { throwIfNoEntry: false });
  if (found === undefined) return `${file} is not there`;
  if (!found.isFile()) return `${file} is not a plain file`;
  if (found.size !== storedBytes)
    return `${file} has ${found.size} bytes, and the manifest says ${storedBytes}`;
  return "";
}

/** Undefined when it is not there. */
function readManifest(path: string): string | undefined {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found === undefined) return undefined;
  if (!found.isFile() || found.size > LARGEST_MANIFEST) return "";
  return readFileSync(path, "utf8");
}

function folderBytes(folder: string): number {
  return readdirSync(folder)
    .map((name) => lstatSync(join(folder, name), { throwIfNoEntry: false })?.size ?? 0)
    .reduce((sum, size) => sum + size, 0);
}

/** Why a checkpoint cannot be restarted, as an error; only for one that is not complete. */
export function unusable(entry: CheckpointEntry): SymvirtError {
  const { id, state, trouble } = entry;
  const text: Record<Exclude<CheckpointState, "complete">, [string, string]> = {
    damaged: [
      `checkpoint ${id} is damaged: ${trouble}`,
      "take another one; `symvirt checkpoints verify` says which are whole",
    ],
    foreign: [
      `checkpoint ${id} cannot be used here: ${trouble}`,
      "give the cluster file it was made with (-c)",
    ],
    newer: [`checkpoint ${id} cannot be read: ${trouble}`, "use that version of symvirt, or a newer one"],
    writing: [`checkpoint ${id} is not complete: ${trouble}`, "wait until it is"],
    partial: [
      `checkpoint ${id} is not complete: ${trouble}`,
      "take an earlier one; the next checkpoint removes this",
    ],
  };
  const [message, hint] = state === "complete" ? [`checkpoint ${id} is complete`, ""] : text[state];
  return new SymvirtError("refused", message, { hint });
}
