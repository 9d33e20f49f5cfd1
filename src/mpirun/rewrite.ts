/**
 * Adds to mpirun's command line what a migratable job needs: the library in every rank, the job's id,
 * and MCA settings the user has not chosen himself. The user's words stay as they are, in their order;
 * ours go right before the program, because the last `-x` of a variable wins.
 */
import { type AppContext, type MpirunCommand, readCommandLine } from "./command-line.js";

export interface RewriteOptions {
  /** Environment of the wrapper. */
  env: Record<string, string | undefined>;
  /** Absolute path of libsymvirt.so; undefined leaves the ranks alone (`--no-preload`). */
  library: string | undefined;
  /** The id the ranks register under. */
  job: string;
  /** A RoCE port is there: openib must use its IPv4-mapped GID. */
  roce: boolean;
  /** MCA parameters set in files of `-am` and `--tune`. */
  setInFiles?: ReadonlyMap<string, string>;
}

export interface Rewritten {
  words: string[];
  /** What will keep the job from being migratable, one sentence each. */
  warnings: string[];
}

const MCA: readonly (readonly [string, string])[] = [
  ["pml", "ob1"],
  ["btl", "openib,tcp,self,vader"],
  ["btl_openib_allow_ib", "1"],
  ["btl_openib_warn_default_gid_prefix", "0"],
  ["btl_openib_warn_no_device_params_found", "0"],
];

/** Returns the words to give to mpirun. Help and version requests are returned unchanged. */
export function rewrite(words: readonly string[], options: RewriteOptions): Rewritten {
  const command = readCommandLine(words);
  if (command.printing) return { words: [...words], warnings: [] };
  const mca = mcaWords(command, options);
  const inserts = new Map<number, string[]>();
  for (const [index, context] of command.contexts.entries()) {
    const at =
      context.program ?? (command.appFile && command.contexts.length === 1 ? words.length : undefined);
    if (at === undefined) continue;
    // After "--" no option is read any more: stand before it.
    const place = at > 0 && words[at - 1] === "--" ? at - 1 : at;
    // MCA parameters of the first context hold for all of them; exported variables do not.
    inserts.set(place, [...(index === 0 ? mca : []), ...exportWords(context, options)]);
  }
  const result: string[] = [];
  for (let i = 0; i <= words.length; i++) {
    result.push(...(inserts.get(i) ?? []));
    const word = words[i];
    if (word !== undefined) result.push(word);
  }
  return { words: result, warnings: warningsFor(command, options) };
}

function mcaWords(command: MpirunCommand, { env, roce, setInFiles }: RewriteOptions): string[] {
  const chosen = new Set([...command.mca.map(({ name }) => name), ...(setInFiles?.keys() ?? [])]);
  const wanted = roce ? [...MCA, ["btl_openib_gid_index", "1"] as const] : MCA;
  return wanted
    .filter(([name]) => !chosen.has(name) && env[`OMPI_MCA_${name}`] === undefined)
    .flatMap(([name, value]) => ["--mca", name, value]);
}

function exportWords({ exported }: AppContext, { env, library, job }: RewriteOptions): string[] {
  if (library === undefined) return [];
  const others = Object.keys(env)
    .filter((name) => name.startsWith("SYMVIRT_") && name !== "SYMVIRT_JOB" && env[name] !== undefined)
    .filter((name) => !exported.has(name))
    .sort();
  const before = exported.get("LD_PRELOAD") ?? env.LD_PRELOAD ?? "";
  const preload = before === "" ? library : `${library}:${before}`;
  const words = ["-x", `LD_PRELOAD=${preload}`];
  if (!exported.has("SYMVIRT_JOB")) words.push("-x", `SYMVIRT_JOB=${job}`);
  return [...words, ...others.flatMap((name) => ["-x", name])];
}

function warningsFor(command: MpirunCommand, { env, library, setInFiles }: RewriteOptions): string[] {
  if (library === undefined) return [];
  const warnings: string[] = [];
  // Tried with 4.1.4: mpirun reads each line of the file as a command line of its own, and nothing of this one holds there.
  if (command.appFile)
    warnings.push(
      "mpirun does not apply the options of its command line to the programs of --app FILE: they run without symvirt, " +
        "unless each line of the file has what --print-cmd shows",
    );
  const chosen = (name: string) =>
    command.mca.findLast((m) => m.name === name)?.value ?? env[`OMPI_MCA_${name}`] ?? setInFiles?.get(name);
  const pml = chosen("pml");
  if (pml !== undefined && !includesComponent(pml, "ob1"))
    warnings.push(`pml "${pml}" is not ob1: this job will not be migratable`);
  const btl = chosen("btl");
  if (btl !== undefined && !includesComponent(btl, "openib"))
    warnings.push(`btl "${btl}" leaves out openib: this job will not use the card`);
  if (btl !== undefined && !includesComponent(btl, "tcp"))
    warnings.push(`btl "${btl}" leaves out tcp: this job has no route while its card is away`);
  return warnings;
}

/** True if an MCA selection ("a,b" or "^a,b") lets the component in. */
function includesComponent(selection: string, component: string): boolean {
  const excluding = selection.startsWith("^");
  const names = selection.replace(/^\^/, "").split(",");
  return names.includes(component) !== excluding;
}

/** One word for a POSIX shell. */
export function shellQuote(word: string): string {
  return /^[A-Za-z0-9_@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}
