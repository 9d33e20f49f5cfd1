/** Text that came from a guest, made safe for a terminal, a log line and an error message. */

/** Control characters (C0, DEL, C1), line and direction controls: anything that could move a cursor or fake a line. */
const unsafe = new RegExp(
  "[\\u0000-\\u001f\\u007f-\\u009f\\u2028\\u2029\\u200e\\u200f\\u202a-\\u202e\\u2066-\\u2069]",
  "gu",
);

/** Replaces what could act on a terminal by "?" and cuts to `max` characters. */
export function plainText(value: string, max = 200): string {
  const clean = value.replace(unsafe, "?");
  return clean.length > max ? `${clean.slice(0, max - 1)}…` : clean;
}
