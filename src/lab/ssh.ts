/** Reaching the guests of a lab: ssh from the switch's namespace, with the lab's own key. */
import { spawn } from "node:child_process";
import { SymvirtError } from "../errors.js";
import { quote } from "../vmm/qemu/run-on-host.js";
import type { OpenLab } from "./lab-cluster.js";
import { type RunResult, run, runForResult } from "./process.js";

const SSH_OPTIONS = [
  "StrictHostKeyChecking=no",
  "UserKnownHostsFile=/dev/null",
  "LogLevel=ERROR",
  "BatchMode=yes",
  "IdentitiesOnly=yes",
  "ServerAliveInterval=15",
  "ServerAliveCountMax=8",
].flatMap((option) => ["-o", option]);

/** Address of a lab's VM; a usage error names the VMs there are. */
export function vmAddress(lab: OpenLab, vm: string): string {
  const entry = Object.hasOwn(lab.cluster.vms, vm) ? lab.cluster.vms[vm] : undefined;
  if (entry?.address === undefined)
    throw new SymvirtError("usage", `Unknown VM "${vm}"`, {
      hint: `this lab has ${Object.keys(lab.cluster.vms).join(", ")}`,
    });
  return entry.address;
}

/** argv of an ssh to a VM, without a command (`-F none`: the user's own settings play no part). */
export function sshArguments(lab: OpenLab, vm: string, connectSeconds = 30): string[] {
  return [
    ...["ip", "netns", "exec", lab.lab.namespace],
    ...["ssh", "-F", "none", "-i", lab.lab.sshKey, ...SSH_OPTIONS, "-o", `ConnectTimeout=${connectSeconds}`],
    `root@${vmAddress(lab, vm)}`,
  ];
}

/** ssh hands one line to the guest's shell, so each word is quoted for it. */
const remoteLine = (argv: readonly string[]): string => argv.map(quote).join(" ");

export interface ExecOptions {
  input?: string;
  signal?: AbortSignal;
  onLine?: (line: string) => void;
}

/** Runs a command in a guest and collects its output. 255 is ssh's own status: the guest was not reached. */
export function labExec(
  lab: OpenLab,
  vm: string,
  argv: readonly string[],
  options: ExecOptions = {},
): Promise<RunResult> {
  return runForResult([...sshArguments(lab, vm), remoteLine(argv)], options);
}

/**
 * Runs a command in a guest, or a shell when there is none, on this process' own stdin, stdout and
 * stderr; resolves with its exit status.
 */
export function labExecInherited(
  lab: OpenLab,
  vm: string,
  argv: readonly string[],
  signal?: AbortSignal,
): Promise<number> {
  const line = argv.length === 0 ? [] : [remoteLine(argv)];
  const terminal = argv.length === 0 && process.stdin.isTTY ? ["-t"] : [];
  const [command = "ip", ...args] = [...sshArguments(lab, vm), ...terminal, ...line];
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: "inherit", ...(signal === undefined ? {} : { signal }) });
    child.once("error", (cause) => {
      // An abort ends ssh; "close" follows.
      if (signal?.aborted !== true) reject(cause);
    });
    child.once("close", (code) => {
      if (signal?.aborted === true) reject(signal.reason);
      else resolve(code ?? 255);
    });
  });
}

/** Splits "vm1:/path" into VM and path; undefined for a local path. */
export function remotePath(lab: OpenLab, text: string): { vm: string; path: string } | undefined {
  const match = /^([A-Za-z0-9][A-Za-z0-9._-]*):(.*)$/s.exec(text);
  if (match?.[1] === undefined || match[2] === undefined) return undefined;
  vmAddress(lab, match[1]);
  return { vm: match[1], path: match[2] === "" ? "." : match[2] };
}

/** Copies a file or folder into a guest or out of one; exactly one side is "VM:PATH". */
export async function labCopy(lab: OpenLab, from: string, to: string, signal?: AbortSignal): Promise<void> {
  const source = remotePath(lab, from);
  const target = remotePath(lab, to);
  const remote = source ?? target;
  if (remote === undefined || (source !== undefined && target !== undefined))
    throw new SymvirtError("usage", `Exactly one of "${from}" and "${to}" must be VM:PATH`, {
      hint: "for example: symvirt lab cp ./a.out vm1:/root/",
    });
  const spell = (side: { path: string }): string => `root@${vmAddress(lab, remote.vm)}:${side.path}`;
  await run(
    [
      ...["ip", "netns", "exec", lab.lab.namespace],
      ...["scp", "-F", "none", "-q", "-r", "-p", "-i", lab.lab.sshKey, ...SSH_OPTIONS],
      source === undefined ? from : spell(source),
      target === undefined ? to : spell(target),
    ],
    signal === undefined ? {} : { signal },
  );
}
