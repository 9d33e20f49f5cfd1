/**
 * Reads the cluster file. Every complaint names the place: file:line:column and the key path, so that
 * an operator can go to the line. All complaints of a file are collected and told at once.
 */
import { existsSync, readFileSync } from "node:fs";
import { isMap, LineCounter, type Node, parseDocument } from "yaml";
import type { z } from "zod";
import { SymvirtError } from "../errors.js";
import { type Cluster, card, clusterFile, host, policy, vm } from "./cluster-schema.js";
import { suggestion } from "./suggest.js";

type Path = readonly (string | number)[];
interface Complaint {
  path: Path;
  text: string;
  /** Point at the key itself, not at its value. */
  atKey?: string;
}

/** Where the cluster file is looked for without `-c`: $SYMVIRT_CLUSTER, here, then the lab's. */
export function defaultClusterPath(env: NodeJS.ProcessEnv = process.env): string {
  if (env.SYMVIRT_CLUSTER) return env.SYMVIRT_CLUSTER;
  const candidates = ["./cluster.yaml", "/run/symvirt/lab/cluster.yaml"];
  const found = candidates.find((path) => existsSync(path));
  if (found !== undefined) return found;
  throw new SymvirtError("usage", `there is no cluster file (looked for ${candidates.join(", ")})`, {
    hint: "give one with -c FILE or SYMVIRT_CLUSTER, or make a lab with `symvirt lab up`",
  });
}

/** Reads and checks a cluster file. Throws SymvirtError "usage" with every complaint and its place. */
export function loadCluster(path: string): Cluster {
  let source: string;
  try {
    source = readFileSync(path, "utf8");
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    throw new SymvirtError("usage", `cannot read the cluster file "${path}" (${code ?? String(error)})`, {
      hint: "give one with -c FILE or SYMVIRT_CLUSTER",
      cause: error,
    });
  }
  return parseCluster(source, path);
}

/** The same for a text already in memory; `path` is only for messages. */
export function parseCluster(source: string, path: string): Cluster {
  const lines = new LineCounter();
  const document = parseDocument(source, { lineCounter: lines, uniqueKeys: true, prettyErrors: false });
  const broken = document.errors.map((e) => {
    const at = lines.linePos(e.pos[0]);
    return `${path}:${at.line}:${at.col}: ${e.message}`;
  });
  if (broken.length > 0) throw complaintError(broken);

  const tell = (complaint: Complaint): string => {
    const at = placeOf(document.contents, complaint);
    const where = at === undefined ? { line: 1, col: 1 } : lines.linePos(at);
    const key = [...complaint.path, ...(complaint.atKey === undefined ? [] : [complaint.atKey])].join(".");
    return `${path}:${where.line}:${where.col}: ${key === "" ? "" : `${key}: `}${complaint.text}`;
  };
  const parsed = clusterFile.safeParse(document.toJS());
  if (!parsed.success) throw complaintError(parsed.error.issues.flatMap(fromZod).map(tell));
  const wrong = crossCheck(parsed.data);
  if (wrong.length > 0) throw complaintError(wrong.map(tell));
  return parsed.data;
}

function complaintError(all: string[]): SymvirtError {
  const shown = all.slice(0, 20).join("\n");
  const more = all.length > 20 ? `\n(and ${all.length - 20} more)` : "";
  return new SymvirtError("usage", `the cluster file is not right\n${shown}${more}`, {
    hint: "docs/operations.md has a commented example",
  });
}

function fromZod(issue: z.core.$ZodIssue): Complaint[] {
  const path = issue.path.map((p) => (typeof p === "number" ? p : String(p)));
  if (issue.code === "unrecognized_keys") {
    return issue.keys.map((key) => ({
      path,
      atKey: key,
      text: `unknown key${suggestion(key, keysAt(path))}`,
    }));
  }
  if (issue.code === "invalid_union") {
    // Both branches of our unions (a number or a text with a unit) describe one thing: tell the textual one.
    const texts = issue.errors.flat().map((e) => e.message);
    return [{ path, text: texts[texts.length - 1] ?? issue.message }];
  }
  return [{ path, text: issue.message }];
}

/** Known keys of the mapping at `path`, for suggestions. */
function keysAt(path: Path): string[] {
  const [section, , sub, , inner] = path;
  if (path.length === 0) return Object.keys(clusterFile.shape);
  if (section === "hosts") {
    if (sub === "cards") return inner === "identity" ? ["mac", "guid"] : Object.keys(card.shape);
    return sub === "ports" ? ["from", "to"] : Object.keys(host.shape);
  }
  if (section === "vms") return sub === "cards" ? ["bus", "card"] : Object.keys(vm.shape);
  if (section === "checkpoints") return ["path", "level", "keep"];
  if (section === "limits") return ["bandwidth", "maxDowntime", "strategy", "parkAfter"];
  if (section === "policy") return path.length === 1 ? Object.keys(policy.shape) : policyKeys(path[1]);
  if (section === "deadlines")
    return ["hello", "prepare", "park", "detach", "migrate", "hold", "attach", "linkUp", "resume"];
  return [];
}

function policyKeys(part: string | number | undefined): string[] {
  const { reactive, proactive } = policy.shape;
  return Object.keys(part === "reactive" ? reactive.unwrap().shape : proactive.unwrap().shape);
}

/** What no schema can say: names that point at each other, and cards that can be in one VM only. */
function crossCheck(cluster: Cluster): Complaint[] {
  const wrong: Complaint[] = [];
  const usedCards = new Map<string, string>();
  const files = new Map<string, { name: string; key: string }>();
  for (const [name, h] of Object.entries(cluster.hosts)) {
    if (h.ports.from > h.ports.to)
      wrong.push({ path: ["hosts", name, "ports"], text: `from ${h.ports.from} is above to ${h.ports.to}` });
    if (h.dial.length > 0 && !h.dial.some((a) => a.includes("{socket}")))
      wrong.push({ path: ["hosts", name, "dial"], text: 'must name "{socket}" somewhere' });
  }
  for (const [name, v] of Object.entries(cluster.vms)) {
    const home = cluster.hosts[v.host];
    if (home === undefined) {
      const text = `there is no host "${v.host}"${suggestion(v.host, Object.keys(cluster.hosts))}`;
      wrong.push({ path: ["vms", name, "host"], text });
      continue;
    }
    for (const [tag, slot] of Object.entries(v.cards)) {
      if (slot.card === undefined) continue;
      const path = ["vms", name, "cards", tag, "card"];
      if (home.cards[slot.card] === undefined) {
        const known = suggestion(slot.card, Object.keys(home.cards));
        wrong.push({ path, text: `host "${v.host}" has no card "${slot.card}"${known}` });
      }
      const key = `${v.host}/${slot.card}`;
      const other = usedCards.get(key);
      if (other !== undefined) wrong.push({ path, text: `card ${key} is already that of ${other}` });
      usedCards.set(key, `${name}.${tag}`);
    }
    // By this word of its command line a VM's process is found, and a dead one known to be dead.
    if (!v.command.some((word) => namesFile(word, v.pidfile, name)))
      wrong.push({
        path: ["vms", name, "command"],
        text: `must name the pid file: -pidfile ${v.pidfile} as words of its own`,
      });
    // A file copied and pasted: one VM would be taken for the other.
    for (const key of ["channel", "qmp", "pidfile"] as const) {
      const file = `${v.host}:${v[key].replaceAll("{vm}", name)}`;
      const other = files.get(file);
      if (other !== undefined)
        wrong.push({ path: ["vms", name, key], text: `the same path as ${other.key} of ${other.name}` });
      files.set(file, { name, key });
    }
  }
  return wrong;
}

function namesFile(word: string, file: string, vm: string): boolean {
  return word === file || word.replaceAll("{vm}", vm) === file.replaceAll("{vm}", vm);
}

/** Offset of the node at a path (the nearest that exists), or of a key. */
function placeOf(root: unknown, { path, atKey }: Complaint): number | undefined {
  let node = root as Node | null;
  let offset = node?.range?.[0];
  const steps = atKey === undefined ? path : [...path, atKey];
  for (const [i, step] of steps.entries()) {
    const last = i === steps.length - 1;
    if (isMap(node)) {
      const pair = node.items.find(
        (p) => String((p.key as { value?: unknown } | null)?.value) === String(step),
      );
      if (pair === undefined) break;
      const key = pair.key as Node | null;
      const value = pair.value as Node | null;
      const pointAtKey = (last && atKey !== undefined) || value?.range === undefined || value.range === null;
      offset = (pointAtKey ? key : value)?.range?.[0] ?? offset;
      node = value;
    } else if (node !== null && typeof node === "object" && "items" in node) {
      node = ((node as { items: unknown[] }).items[Number(step)] ?? null) as Node | null;
      offset = node?.range?.[0] ?? offset;
    } else break;
  }
  return offset;
}
