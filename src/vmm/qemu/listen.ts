/** Making a destination QEMU (`-incoming defer`) listen on a free port of its host. */
import { SymvirtError } from "../../errors.js";
import { QmpCommandError } from "./qmp-errors.js";
import type { QemuSession } from "./session.js";

export interface ListenAddress {
  /** Where other hosts reach this one; an IPv6 address without brackets. */
  address: string;
  ports: { from: number; to: number };
}

/**
 * Listens on the first free port of the range and returns the URI for the source. A second call returns
 * the URI of the first.
 *
 * The VM comes up paused when it has arrived, whatever its command line says: a source that takes a
 * migration back in its last moment must not find the VM running twice.
 */
export async function listenIncoming(
  session: QemuSession,
  { address, ports }: ListenAddress,
  signal: AbortSignal,
): Promise<string> {
  const { status } = await session.execute("query-status", {}, signal);
  if (status !== "inmigrate") {
    throw cannotListen(
      session,
      `it is in state "${status}", not "inmigrate"`,
      "launch it with -incoming defer",
    );
  }
  await session.execute("stop", {}, signal); // in state inmigrate: "do not start on arrival"

  const host = address.includes(":") ? `[${address}]` : address;
  const listening = await listeningPort(session, signal);
  if (listening !== undefined) return `tcp:${host}:${listening}`;

  let inUse = "";
  for (let port = ports.from; port <= ports.to; port++) {
    const uri = `tcp:${host}:${port}`;
    try {
      await session.execute("migrate-incoming", { uri }, signal);
      return uri;
    } catch (error) {
      if (!(error instanceof QmpCommandError)) throw error;
      if (!/address already in use/i.test(error.description)) {
        throw cannotListen(
          session,
          `${uri}: ${error.description}`,
          `check the "address" of host ${session.target.host} in the cluster file`,
          error,
        );
      }
      inUse = error.description;
    }
  }
  throw cannotListen(
    session,
    `no free port from ${ports.from} to ${ports.to} at ${address}${inUse === "" ? "" : ` (${inUse})`}`,
    `free one, or widen "ports" of host ${session.target.host} in the cluster file`,
  );
}

/** Port of an earlier migrate-incoming, undefined when there was none. */
async function listeningPort(session: QemuSession, signal: AbortSignal): Promise<string | undefined> {
  const reply = await session.execute("query-migrate", {}, signal);
  return reply["socket-address"]?.find((one) => one.type === "inet")?.port;
}

function cannotListen(session: QemuSession, why: string, hint: string, cause?: unknown): SymvirtError {
  return new SymvirtError("refused", `destination ${session.name} cannot listen: ${why}`, {
    hint,
    ...(cause === undefined ? {} : { cause }),
  });
}
