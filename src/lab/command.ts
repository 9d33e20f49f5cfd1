/** The QEMU command line of a lab VM: the same on every host, without its card. */

import type { Accelerator } from "./accelerator.js";
import { fabricTap, MAX_VMS, managementMac, managementTap } from "./addresses.js";

/** Tag (qdev id) of the fabric card, and the root port it sits on. */
export const CARD_TAG = "hca0";
export const CARD_BUS = "rp0";

export interface VmShape {
  vm: string;
  number: number;
  memoryMiB: number;
  cpus: number;
  accelerator: Accelerator;
  kernel: string;
  initrd: string;
  disk: string;
  layer: string;
}

/** Kernel arguments: quiet start, no name games, and nothing that costs an emulated CPU time for safety a lab does not need. */
export function kernelArguments(number: number): string {
  return [
    "console=ttyS0",
    "quiet",
    "panic=-1",
    "net.ifnames=0",
    "mitigations=off",
    "nokaslr",
    "no5lvl",
    "cryptomgr.notests",
    "random.trust_cpu=on",
    "8250.nr_uarts=1",
    `symvirt.vm=${number}`,
  ].join(" ");
}

/**
 * Size of the guest's RAM. Before 9.0 QEMU's emulator loses writes during pre-copy: where a RAM block is a multiple of
 * 64 pages, its dirty bits are gathered a word at a time without telling the emulator's TLB, which then marks no
 * further write to those pages (include/exec/ram_addr.h, cpu_physical_memory_sync_dirty_bitmap). Two pages more than a
 * multiple, and every page is looked at by itself. KVM keeps its own log and is not concerned.
 */
function memory({ memoryMiB, accelerator }: VmShape): string {
  return accelerator === "tcg" ? `${memoryMiB * 1024 + 8}K` : String(memoryMiB);
}

/** argv with "{vm}" and "{runtime}" left for the launcher to fill in; pure. */
export function vmCommand(shape: VmShape): string[] {
  if (shape.number < 1 || shape.number > MAX_VMS) throw new RangeError(`VM number ${shape.number}`);
  const accelerator =
    shape.accelerator === "kvm"
      ? ["-accel", "kvm", "-cpu", "host"]
      : ["-accel", "tcg,thread=multi", "-cpu", "max"];
  // Source and destination open the disk at once during the hand-over: no locks. The disk dies with the lab: no flushes.
  const disk = `file=${shape.disk},format=qcow2,if=none,id=root,file.locking=off,cache=unsafe`;
  const layer = `file=${shape.layer},format=raw,if=none,id=layer,readonly=on,file.locking=off`;
  return [
    ...["qemu-system-x86_64", "-name", "{vm}", "-nodefaults", "-no-user-config", "-machine", "q35"],
    ...accelerator,
    ...["-smp", String(shape.cpus), "-m", memory(shape), "-display", "none", "-no-reboot"],
    // As with a real card: VFIO pins all memory. A background snapshot touches every page while the VM stands still.
    "-mem-prealloc",
    ...["-kernel", shape.kernel, "-initrd", shape.initrd, "-append", kernelArguments(shape.number)],
    ...["-serial", "file:{runtime}/{vm}.serial"],
    ...["-qmp", "unix:{runtime}/{vm}.qmp,server=on,wait=off"],
    ...["-drive", disk, "-device", "virtio-blk-pci,drive=root"],
    ...["-drive", layer, "-device", "virtio-blk-pci,drive=layer"],
    ...["-netdev", `tap,id=management,ifname=${managementTap(shape.vm)},script=no,downscript=no`],
    ...["-device", `virtio-net-pci,netdev=management,mac=${managementMac(shape.number)},romfile=`],
    ...["-netdev", `tap,id=fabric,ifname=${fabricTap(shape.vm)},script=no,downscript=no`],
    ...[
      "-device",
      "pcie-root-port,id=rp0,slot=4,chassis=4",
      "-device",
      "pcie-root-port,id=rp1,slot=5,chassis=5",
    ],
    ...[
      "-device",
      "virtio-serial-pci",
      "-chardev",
      "socket,id=symvirt,path={runtime}/{vm}.channel,server=on,wait=off",
    ],
    ...["-device", "virtserialport,chardev=symvirt,name=org.symvirt.0"],
    ...["-daemonize", "-pidfile", "{runtime}/{vm}.pid"],
  ];
}
