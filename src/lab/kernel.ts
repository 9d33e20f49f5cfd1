/** Kernel and initrd of the guest image, made small and quick to start without hardware virtualisation. */
import { copyFile, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { run, runForResult } from "./process.js";

/**
 * The ELF kernel inside a bzImage whose payload is xz, or undefined for any other. QEMU starts it
 * directly (PVH), which spares the guest several emulated seconds of unpacking itself.
 * Offsets: boot protocol of the kernel's documentation, "The real-mode kernel header".
 */
export async function extractElfKernel(bzImage: string, elf: string): Promise<boolean> {
  const image = await readFile(bzImage);
  if (image.length < 0x250 || image.toString("latin1", 0x202, 0x206) !== "HdrS") return false;
  const setupSectors = image[0x1f1] || 4;
  const start = (setupSectors + 1) * 512 + image.readUInt32LE(0x248);
  // The last four bytes of the payload are its unpacked size.
  const payload = image.subarray(start, start + image.readUInt32LE(0x24c) - 4);
  if (payload.toString("latin1", 1, 5) !== "7zXZ") return false;
  const packed = `${elf}.xz`;
  await writeFile(packed, payload);
  const unpacked = await runForResult(["sh", "-c", 'exec xz -dc "$1" >"$2"', "sh", packed, elf]);
  await rm(packed);
  const magic = unpacked.code === 0 ? (await readFile(elf)).toString("latin1", 0, 4) : "";
  if (magic === "\x7fELF") return true;
  await rm(elf, { force: true });
  return false;
}

/** Writes `initrd`: busybox, our first program, and `modules` with their dependencies in load order. */
export async function makeInitrd(
  tree: string,
  options: {
    kernelRelease: string;
    modules: readonly string[];
    init: string;
    scratch: string;
    initrd: string;
  },
): Promise<void> {
  const { kernelRelease, scratch } = options;
  for (const folder of ["bin", "modules", "dev", "proc", "root"])
    await mkdir(join(scratch, folder), { recursive: true });
  await copyFile(join(tree, "usr/bin/busybox"), join(scratch, "bin/busybox")).catch(() =>
    copyFile(join(tree, "bin/busybox"), join(scratch, "bin/busybox")),
  );
  await writeFile(join(scratch, "init"), options.init, { mode: 0o755 });
  const ordered = new Set<string>();
  for (const module of options.modules) {
    const listed = await run(["chroot", tree, "modprobe", "-S", kernelRelease, "--show-depends", module]);
    for (const line of listed.split("\n")) {
      const path = /^insmod (\S+)/.exec(line)?.[1];
      if (path !== undefined) ordered.add(path);
    }
  }
  let index = 0;
  for (const path of ordered) {
    const name = `${String(index++).padStart(2, "0")}-${basename(path)}`;
    await copyFile(join(tree, path), join(scratch, "modules", name));
  }
  await run(["sh", "-c", 'cd "$1" && find . | cpio --quiet -o -H newc >"$2"', "sh", scratch, options.initrd]);
}
