/**
 * Reads mpirun's command line just well enough to know what the user has set and where each program
 * begins. Nothing is changed here. Options as in Open MPI 4.0 and 4.1 (`mpirun --help all`).
 */

/** Options that take one word; with one or two dashes. */
const ONE_WORD = new Set(
  `am app bind-to c cartofile cf cpu-list cpu-set cpus-per-proc cpus-per-rank debugger default-hostfile hnp host
  H hostfile launch-agent machinefile map-by max-restarts max-vm-size n N np npernode npersocket ompi-server
  output-filename path personality ppr prefix preload-files rank-by rankfile report-events report-pid report-uri rf
  sstore-load stdin timeout tune wd wdir x xml-file xterm`.split(/\s+/),
);
const TWO_WORDS = new Set(["mca", "gmca"]);
/** With one of these mpirun only prints something. */
const PRINTING = new Set(["help", "h", "version", "V"]);

export interface McaSetting {
  name: string;
  value: string;
}

/** One application context: the words between two ":". */
export interface AppContext {
  /** Index in the words where the program stands; undefined if there is none. */
  program: number | undefined;
  /** `-x NAME` and `-x NAME=value`; undefined without a value. */
  exported: Map<string, string | undefined>;
}

export interface MpirunCommand {
  contexts: AppContext[];
  mca: McaSetting[];
  /** Files of `-am` and `--tune`, as given. */
  parameterFiles: string[];
  /** Programs come from a file (`--app`). */
  appFile: boolean;
  /** Only help or version is asked for. */
  printing: boolean;
}

/** Reads the words after `mpirun`. Never fails: what it does not know it takes for an option without words. */
export function readCommandLine(words: readonly string[]): MpirunCommand {
  const command: MpirunCommand = {
    contexts: [],
    mca: [],
    parameterFiles: [],
    appFile: false,
    printing: false,
  };
  let context: AppContext = { program: undefined, exported: new Map() };
  command.contexts.push(context);
  for (let i = 0; i < words.length; i++) {
    const word = words[i] ?? "";
    if (word === ":") {
      context = { program: undefined, exported: new Map() };
      command.contexts.push(context);
      continue;
    }
    if (context.program !== undefined) continue;
    if (word === "--") {
      if (i + 1 < words.length) context.program = i + 1;
      continue;
    }
    if (!word.startsWith("-") || word === "-") {
      context.program = i;
      continue;
    }
    i += readOption(command, context, word.replace(/^--?/, ""), words.slice(i + 1, i + 3));
  }
  return command;
}

/** Takes one option; returns how many of the following words belong to it. */
function readOption(command: MpirunCommand, context: AppContext, name: string, next: string[]): number {
  const [first = "", second = ""] = next;
  if (PRINTING.has(name)) command.printing = true;
  if (name === "app") command.appFile = true;
  if (name === "am" || name === "tune")
    command.parameterFiles.push(...first.split(",").filter((f) => f !== ""));
  if (name === "x") {
    const [variable = "", ...value] = first.split("=");
    context.exported.set(variable, value.length === 0 ? undefined : value.join("="));
  }
  if (TWO_WORDS.has(name)) {
    command.mca.push({ name: first, value: second });
    return 2;
  }
  return ONE_WORD.has(name) ? 1 : 0;
}

/** MCA parameters set in the text of an `-am` ("name = value") or `--tune` ("-mca name value") file. */
export function parametersIn(text: string): Map<string, string> {
  const found = new Map<string, string>();
  for (const line of text.split("\n")) {
    if (/^\s*#/.test(line)) continue;
    for (const [, name = "", value = ""] of line.matchAll(/(?:^|\s)--?g?mca\s+(\S+)\s+(\S+)/g))
      found.set(name, value);
    const [, name, value = ""] = /^\s*([A-Za-z0-9_]+)\s*=\s*(.*?)\s*$/.exec(line) ?? [];
    if (name !== undefined) found.set(name, value);
  }
  return found;
}
