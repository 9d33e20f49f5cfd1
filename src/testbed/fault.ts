/** What a run in a lab can find. */

/**
 * failed: a command or the state after it is not what it should be; wrong: a job's data, or its end, is not
 * right; lost: a job stands still for ever, as when a message got lost; leaked: a rank holds more than before.
 */
export const faultKinds = ["failed", "wrong", "lost", "leaked"] as const;
export type FaultKind = (typeof faultKinds)[number];

export class Fault extends Error {
  readonly kind: FaultKind;

  constructor(kind: FaultKind, message: string, options: { cause?: unknown } = {}) {
    super(message, options);
    this.name = "Fault";
    this.kind = kind;
  }
}
