/** Which QEMU accelerator really works here. */
import { spawn } from "node:child_process";
import { accessSync, constants } from "node:fs";

export type Accelerator = "kvm" | "tcg";

/**
 * /dev/kvm may open and create VMs while the first vCPU aborts. So a throw-away machine is started
 * under KVM, and only the first byte of its firmware's debug output, which a vCPU must have run to
 * write, counts as proof.
 */
export async function probeAccelerator(deadlineMs = 3000): Promise<Accelerator> {
  try {
    accessSync("/dev/kvm", constants.R_OK | constants.W_OK);
  } catch {
    return "tcg";
  }
  return (await firmwareSpeaks(deadlineMs)) ? "kvm" : "tcg";
}

function firmwareSpeaks(deadlineMs: number): Promise<boolean> {
  const machine = ["-nodefaults", "-no-user-config", "-display", "none", "-machine", "q35", "-m", "64"];
  const firmwareLog = [
    "-chardev",
    "stdio,id=log,signal=off",
    "-device",
    "isa-debugcon,iobase=0x402,chardev=log",
  ];
  const child = spawn("qemu-system-x86_64", [...machine, "-accel", "kvm", "-cpu", "host", ...firmwareLog], {
    stdio: ["ignore", "pipe", "ignore"],
  });
  return new Promise((resolve) => {
    let spoke = false;
    const deadline = setTimeout(() => child.kill("SIGKILL"), deadlineMs);
    child.stdout.once("data", () => {
      spoke = true;
      child.kill("SIGKILL");
    });
    child.once("error", () => {
      clearTimeout(deadline);
      resolve(false);
    });
    child.once("close", () => {
      clearTimeout(deadline);
      resolve(spoke);
    });
  });
}
