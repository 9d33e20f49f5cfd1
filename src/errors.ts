/** Documented exit codes of every symvirt verb (docs/operations.md). */
export const ExitCode = {
  done: 0,
  internal: 1,
  usage: 2,
  /** Refused before anything was touched. */
  refused: 3,
  deadline: 4,
  /** Failed and rolled back: the job runs. */
  rolledBack: 5,
  /** Failed, a person must act; the message says how. */
  needsOperator: 6,
  /** QMP or agent unreachable. */
  unreachable: 7,
  interrupted: 130,
  terminated: 143,
} as const;

export type ExitCodeName = keyof typeof ExitCode;

/**
 * The one error class that reaches a user: what failed, where, and what to do next.
 * `message` is one sentence without a trailing period; `hint` is the next step.
 */
export class SymvirtError extends Error {
  readonly exit: ExitCodeName;
  readonly hint: string | undefined;
  /** Nobody knows what the failed work did, or may yet do: nothing may be built on its having had no effect. */
  readonly unsettled: boolean;

  constructor(
    exit: ExitCodeName,
    message: string,
    options: { hint?: string; cause?: unknown; unsettled?: boolean } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = "SymvirtError";
    this.exit = exit;
    this.hint = options.hint;
    this.unsettled = options.unsettled === true;
  }

  get exitCode(): number {
    return ExitCode[this.exit];
  }
}
