/**
 * Errors of a QMP session, by meaning:
 *
 *   SymvirtError
 *    ├─ QmpCommandError   QEMU understood and refused ("internal" until the driver says what it means)
 *    ├─ QmpClosedError    the session has ended; pending and later commands get it ("unreachable")
 *    └─ QmpProtocolError  the far end does not speak QMP as we know it; ends the session ("unreachable")
 */
import { SymvirtError } from "../../errors.js";

export class QmpCommandError extends SymvirtError {
  /** "GenericError", "DeviceNotFound", "CommandNotFound", … */
  readonly errorClass: string;
  /** QEMU's own sentence. */
  readonly description: string;

  constructor(where: string, command: string, errorClass: string, description: string) {
    super("internal", `${where}: ${command} refused: ${description}`);
    this.name = "QmpCommandError";
    this.errorClass = errorClass;
    this.description = description;
  }
}

export class QmpClosedError extends SymvirtError {
  constructor(where: string, why: string, cause?: unknown) {
    super("unreachable", `${where}: ${why}`, {
      hint: "check that the VM is running on this host and that nothing else holds its QMP socket",
      ...(cause === undefined ? {} : { cause }),
    });
    this.name = "QmpClosedError";
  }
}

export class QmpProtocolError extends SymvirtError {
  constructor(problem: string, near?: string, cause?: unknown) {
    super("unreachable", `not QMP: ${problem}${near === undefined ? "" : ` (near "${near}")`}`, {
      hint: "check that the path is the QMP socket of a QEMU",
      ...(cause === undefined ? {} : { cause }),
    });
    this.name = "QmpProtocolError";
  }
}
