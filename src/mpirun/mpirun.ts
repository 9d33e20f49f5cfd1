/** `symvirt mpirun`: finds mpirun and the library, rewrites the command line, runs it. */
import { randomBytes } from "node:crypto";
import { accessSync, constants, existsSync, readFileSync, statSync } from "node:fs";
import { delimiter, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { hasRocePort } from "../agent/devices.js";
import { parametersIn, readCommandLine } from "./command-line.js";
import { launch } from "./launch.js";
import { rewrite, shellQuote } from "./rewrite.js";

/** Exit codes of the wrapper itself, as env and docker have them. */
const WRAPPER_FAILED = 125;
const NOT_FOUND = 127;

/** An error of the wrapper, not of mpirun. */
class WrapperError extends Error {
  constructor(
    readonly exitCode: number,
    message: string,
    readonly hint: string,
  ) {
    super(message);
  }
}

interface OwnOptions {
  printCommand: boolean;
  preload: boolean;
  words: string[];
}

/** Runs `symvirt mpirun ARGS`; resolves with the exit code. Talks on stderr only, but for `--print-cmd`. */
export async function runMpirun(args: readonly string[]): Promise<number> {
  try {
    const { printCommand, preload, words } = takeOwnOptions(args);
    const env = process.env;
    const program = findMpirun(env.PATH ?? "");
    const { words: full, warnings } = rewrite(words, {
      env,
      library: preload ? findLibrary(env.SYMVIRT_LIBRARY) : undefined,
      job: jobId(env.SYMVIRT_JOB),
      roce: env.SYMVIRT_ROCE === "on" || (env.SYMVIRT_ROCE !== "off" && hasRocePort()),
      setInFiles: setInFiles(words),
    });
    for (const warning of warnings) process.stderr.write(`symvirt: warning: ${warning}\n`);
    if (printCommand) {
      process.stdout.write(`${[program, ...full].map(shellQuote).join(" ")}\n`);
      return 0;
    }
    return await launch(program, full);
  } catch (error) {
    if (!(error instanceof WrapperError)) throw error;
    process.stderr.write(`symvirt: ${error.message}\n  ${error.hint}\n`);
    return error.exitCode;
  }
}

/** Our own options stand before mpirun's first; from there on everything is mpirun's. */
function takeOwnOptions(args: readonly string[]): OwnOptions {
  const own: OwnOptions = { printCommand: false, preload: true, words: [] };
  let i = 0;
  for (; i < args.length; i++) {
    const word = args[i] ?? "";
    if (word === "--print-cmd") own.printCommand = true;
    else if (word === "--no-preload") own.preload = false;
    else if (/^--(print-cmd|no-preload)=/.test(word))
      throw new WrapperError(
        WRAPPER_FAILED,
        `Option "${word}" takes no value`,
        "Usage: symvirt mpirun [--print-cmd] [--no-preload] [mpirun's arguments]",
      );
    else break;
  }
  own.words = args.slice(i);
  return own;
}

function findMpirun(path: string): string {
  for (const folder of path.split(delimiter)) {
    const candidate = join(folder === "" ? "." : folder, "mpirun");
    try {
      accessSync(candidate, constants.X_OK);
      if (statSync(candidate).isFile()) return candidate;
    } catch {
      // Not here: the next folder of PATH.
    }
  }
  throw new WrapperError(
    NOT_FOUND,
    "No mpirun in PATH",
    "Install Open MPI 4.1 (apt-get install openmpi-bin) or add its bin folder to PATH",
  );
}

/** The library's path must be the same on every node of the job. */
function findLibrary(chosen: string | undefined): string {
  const places =
    chosen !== undefined && chosen !== ""
      ? [resolve(chosen)]
      : [
          fileURLToPath(new URL("../../build/preload/libsymvirt.so", import.meta.url)),
          "/usr/lib/x86_64-linux-gnu/libsymvirt.so",
        ];
  const found = places.find((place) => existsSync(place));
  if (found === undefined)
    throw new WrapperError(
      WRAPPER_FAILED,
      `No libsymvirt.so at ${places.map((p) => `"${p}"`).join(" or ")}`,
      "Build it (npm run build), name it with SYMVIRT_LIBRARY, or run without it: --no-preload",
    );
  // ld.so takes both for separators and knows no quoting.
  if (/[:\s]/.test(found))
    throw new WrapperError(
      WRAPPER_FAILED,
      `Path "${found}" cannot stand in LD_PRELOAD`,
      "Use a path without spaces and colons",
    );
  return found;
}

function jobId(chosen: string | undefined): string {
  // Inside a rank the variable is that rank's own job, not a wish.
  if (chosen === undefined || process.env.OMPI_COMM_WORLD_RANK !== undefined)
    return randomBytes(16).toString("hex");
  if (!/^[A-Za-z0-9._-]{1,63}$/.test(chosen))
    throw new WrapperError(
      WRAPPER_FAILED,
      `SYMVIRT_JOB "${chosen}" is no job id`,
      "Use 1 to 63 of A-Z a-z 0-9 . _ -, or unset it",
    );
  return chosen;
}

/** What `-am` and `--tune` files set is the user's choice as well. A file that cannot be read is mpirun's to report. */
function setInFiles(words: readonly string[]): Map<string, string> {
  const found = new Map<string, string>();
  for (const file of readCommandLine(words).parameterFiles) {
    let text: string;
    try {
      text = readFileSync(file, "utf8");
    } catch {
      continue;
    }
    for (const [name, value] of parametersIn(text)) found.set(name, value);
  }
  return found;
}
