/** The bodies the server takes. Unknown keys are refused: a misspelt option must not be left out in silence. */
import { z } from "zod";
import { strategies } from "../controller/strategy.js";
import { captureMethods } from "../controller/checkpoint/checkpoint.js";

/** A value without its undefined members, as exactOptionalPropertyTypes wants it. */
export type Defined<T> = {
  [K in keyof T as undefined extends T[K] ? never : K]: T[K];
} & { [K in keyof T as undefined extends T[K] ? K : never]?: Exclude<T[K], undefined> };

export function defined<T extends object>(value: T): Defined<T> {
  return Object.fromEntries(Object.entries(value).filter(([, v]) => v !== undefined)) as Defined<T>;
}

const name = z.string().min(1).max(63);
const milliseconds = z.number().int().min(1).max(2_147_483_647);

const limits = z
  .strictObject({
    bandwidthBytesPerSecond: z.number().int().min(1).optional(),
    maxDowntimeMs: milliseconds.optional(),
    parkAfterMs: z.union([z.literal("never"), milliseconds]).optional(),
  })
  .transform((value) => defined(value));
const how = { strategy: z.enum(strategies).optional(), limits: limits.optional() };

export const bodies = {
  migrate: z.strictObject({ vm: name, to: name, ...how }),
  evacuate: z.strictObject({ host: name, to: z.array(name).min(1).max(1024).optional(), ...how }),
  checkpoint: z.strictObject({
    name: name.optional(),
    strategy: z.enum(strategies).optional(),
    capture: z.enum(captureMethods).optional(),
  }),
  restart: z.strictObject({
    checkpoint: z.string().min(1).max(255),
    on: z.record(name, name).optional(),
    gone: z.array(name).max(1024).optional(),
  }),
  /** `operation`: only this one is meant. */
  abort: z.strictObject({
    operation: z.string().min(1).max(64).optional(),
    gone: z.array(name).max(1024).optional(),
  }),
} as const;

/** Seconds a POST waits for the operation's end before it answers 202; without it it answers at once. */
export const waitQuery = z.strictObject({ wait: z.coerce.number().int().min(0).max(3600).default(0) });
export const statusQuery = z.strictObject({ peers: z.enum(["true", "false"]).default("false") });
/** Journal records after this one; without it and Last-Event-ID only new ones. */
export const eventsQuery = z.strictObject({ after: z.coerce.number().int().min(0).optional() });

/** "vm: Invalid input; to: …": what is wrong, at most ten of it. */
export function complaints(error: z.ZodError): string {
  const all = error.issues.map((issue) => {
    const at = issue.path.map(String).join(".");
    return `${at === "" ? "" : `${at}: `}${issue.message}`;
  });
  return `${all.slice(0, 10).join("; ")}${all.length > 10 ? "; …" : ""}`;
}
