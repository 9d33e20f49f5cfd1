/** The journal of a server's cluster, for `symvirt events --server`. */
import { setTimeout as delay } from "node:timers/promises";
import { z } from "zod";
import { type JournalRecord, journalRecord } from "../controller/state/journal.js";
import { SymvirtError } from "../errors.js";
import { listen, type ServerTarget } from "./client.js";

const AGAIN_MS = 500;
/** A server that does not come back within so long while it is followed. */
const GONE_MS = 60_000;
const hello = z.object({ journal: z.number().int().min(0) });

export interface JournalRequest {
  /** Goes on as it grows, until `signal` aborts; also when the server is started again. Else what is there now. */
  follow: boolean;
  signal: AbortSignal;
  onRecord: (record: JournalRecord) => void;
}

/** Reads it. Throws "unreachable" without an answer, and "internal" for a record that is none. */
export async function readServerJournal(target: ServerTarget, request: JournalRequest): Promise<void> {
  const { follow, signal, onRecord } = request;
  let length = Number.POSITIVE_INFINITY;
  // Without a place to begin at, the stream begins at the end: it says how long the journal is now.
  if (!follow)
    await listen(
      target,
      "/v1/events",
      ({ event, data }) => {
        if (event !== "hello") return true;
        length = parsed(hello, data).journal;
        return false;
      },
      signal,
    );
  let read = 0;
  let heard = performance.now();
  while (read < length) {
    try {
      await listen(
        target,
        `/v1/events?after=${read}`,
        ({ event, id, data }) => {
          heard = performance.now();
          // A new file, which begins with the last cycle of the old one.
          if (event === "reset") return follow;
          if (event !== "journal") return true;
          read = Number(id);
          onRecord(parsed(journalRecord, data));
          return read < length;
        },
        signal,
      );
      if (!follow) return;
    } catch (error) {
      const away = error instanceof SymvirtError && error.exit === "unreachable";
      if (!away || read === 0 || performance.now() - heard > GONE_MS) throw error;
    }
    await delay(AGAIN_MS, undefined, { signal });
  }
}

function parsed<T>(schema: z.ZodType<T>, data: string): T {
  try {
    return schema.parse(JSON.parse(data));
  } catch (cause) {
    throw new SymvirtError("internal", "the server sent a record that this version does not know", {
      hint: "is it of another version?",
      cause,
    });
  }
}
