/** `--server` and `--token-file`: the verbs that a running `symvirt serve` can do in our place. */
import { type Command, Option } from "commander";
import { SymvirtError } from "../../errors.js";
import type { OperationView } from "../../serve/operations.js";
import type { ProgressView } from "./progress.js";

export interface ServerFlags {
  server?: string;
  tokenFile?: string;
}

export function withServer(command: Command): Command {
  return command
    .addOption(
      new Option(
        "--server <url>",
        "let this `symvirt serve` do it: http://HOST:PORT or unix:PATH (env: SYMVIRT_SERVER, unless --cluster is given)",
      ),
    )
    .addOption(
      new Option("--token-file <file>", "file with the server's bearer token").env("SYMVIRT_TOKEN_FILE"),
    );
}

/** Where to ask; undefined without --server. Only then the client's modules are loaded. */
export async function serverOf(
  flags: ServerFlags & { cluster?: string },
): Promise<
  { client: typeof import("../../serve/client.js"); target: { server: string; token?: string } } | undefined
> {
  const server = flags.server ?? (flags.cluster === undefined ? process.env.SYMVIRT_SERVER : undefined);
  if (server === undefined || server === "") return undefined;
  if (flags.cluster !== undefined)
    throw new SymvirtError("usage", "--server and --cluster exclude each other", {
      hint: "the server has its own cluster file",
    });
  const [client, { readToken }] = await Promise.all([
    import("../../serve/client.js"),
    import("../../serve/access.js"),
  ]);
  const token = flags.tokenFile === undefined ? {} : { token: readToken(flags.tokenFile) };
  return { client, target: { server, ...token } };
}

/** The progress of the server's operation, shown as that of our own. */
export function showView(progress: ProgressView): (view: OperationView) => void {
  return (view) => {
    if (view.progress !== null) progress.update(view.progress.target, view.progress.now);
  };
}
