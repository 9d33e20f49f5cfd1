/** The work of a restart on all VMs: disks put back, VMMs started and loaded, and all of it taken back. */
import { randomBytes } from "node:crypto";
import { join } from "node:path";
import type { CapturedVm, Manifest } from "../../checkpoint/manifest.js";
import { partReadCommand } from "../../checkpoint/part-read.js";
import { SymvirtError } from "../../errors.js";
import { quote } from "../../vmm/qemu/run-on-host.js";
import type { Fleet } from "../fleet.js";
import type { SetOp } from "./set-cycle.js";
import { AllVms, type SetOps, type SetVm } from "./set-ops.js";

export interface RestartContext {
  fleet: Fleet;
  vms: readonly SetVm[];
  /** Undefined for a controller that takes over: it only ends what was started. */
  checkpoint: { manifest: Manifest; folder: string } | undefined;
}

export class RestartOps implements SetOps {
  readonly #context: RestartContext;
  readonly #all: AllVms;

  constructor(context: RestartContext) {
    this.#context = context;
    this.#all = new AllVms(context.fleet, context.vms);
  }

  async run(op: SetOp, signal: AbortSignal): Promise<void> {
    const { fleet } = this.#context;
    switch (op) {
      case "load":
        return await this.#all.each((vm) => this.#load(vm, signal));
      case "resume":
        return await this.#all.each(async (vm) => {
          await this.#all.driver(vm).resume(signal);
          await fleet.follow(vm.vm, vm.host);
        });
      case "join":
        return await this.#all.each((vm) => this.#all.join(vm, signal));
      case "attach":
        return await this.#all.attach(signal);
      case "place":
        for (const { vm, host, cards } of this.#context.vms)
          fleet.placement.write(vm, {
            host,
            cards: Object.fromEntries(cards.map(({ tag, card }) => [tag, card])),
          });
        return await this.#all.each((vm) => this.#forgetOldDisks(vm, signal));
      case "end":
        return await this.#all.each(async (vm) => {
          await fleet.drop(vm.vm, vm.host);
          if (!fleet.gone.has(vm.host)) await fleet.vmm.end(vm.vm, vm.host, signal);
          await this.#oldDisksBack(vm, signal);
        });
      case "detach":
      case "hold":
      case "cut":
      case "save":
      case "keep":
      case "release":
        throw new Error(`${op} is no work of a restart`);
    }
  }

  /** The VM stands still afterwards, with its links down. */
  async #load(vm: SetVm, signal: AbortSignal): Promise<void> {
    const { fleet, checkpoint } = this.#context;
    const captured = checkpoint?.manifest.vms.find((v) => v.vm === vm.vm);
    if (checkpoint === undefined || captured === undefined) throw new Error(`nothing to load into ${vm.vm}`);
    for (const disk of captured.disks) await this.#putBack(vm, disk, checkpoint.folder, signal);
    await fleet.vmm.launchIncoming(vm.vm, vm.host, signal);
    const { ram } = captured;
    await this.#all.driver(vm).restore(partReadCommand(join(checkpoint.folder, ram.file), ram), signal);
  }

  /**
   * The image becomes a copy of the checkpoint's, so that the checkpoint can be restarted from again and removed while
   * the VM runs. What it was is kept beside until the restart is done.
   */
  async #putBack(
    vm: SetVm,
    { drive, image, kept }: CapturedVm["disks"][number],
    folder: string,
    signal: AbortSignal,
  ): Promise<void> {
    if (kept.kind === "internal-snapshot")
      throw new SymvirtError("refused", `disk ${drive} of ${vm.vm} is a snapshot inside its image`, {
        hint: "this version restarts from copies only",
      });
    await this.#onHost(
      vm,
      `put back ${image}`,
      `set -e
copy=${quote(join(folder, kept.part.file))}
image=${quote(image)}
if [ -e "$image" ] && { [ ! -f "$image" ] || [ -L "$image" ]; }; then
  echo "$image is no file of its own (a device, or a link)" >&2; exit 1
fi
# Of this attempt alone. Who has given up removes it: then nothing is put in place any more.
new="$image.restart.${randomBytes(6).toString("hex")}"
trap 'rm -f "$new"' EXIT
cp --reflink=auto --sparse=always "$copy" "$new"
sync "$new"
if [ -e "$image" ]; then
  rm -f "$image.before-restart"
  # The name stays: whatever comes between, there is an image.
  ln "$image" "$image.before-restart" 2>/dev/null || mv "$image" "$image.before-restart"
fi
mv -f "$new" "$image"
`,
      signal,
    );
  }

  async #oldDisksBack(vm: SetVm, signal: AbortSignal): Promise<void> {
    for (const image of vm.images)
      await this.#onHost(
        vm,
        `put back ${image}`,
        `image=${quote(image)}
rm -f "$image.restart."????????????
if [ "$image.before-restart" -ef "$image" ]; then rm -f "$image.before-restart"; fi
if [ -e "$image.before-restart" ]; then mv -f "$image.before-restart" "$image"; fi
`,
        signal,
      );
  }

  async #forgetOldDisks(vm: SetVm, signal: AbortSignal): Promise<void> {
    for (const image of vm.images)
      await this.#onHost(
        vm,
        `remove ${image}.before-restart`,
        `rm -f ${quote(`${image}.before-restart`)}\n`,
        signal,
      );
  }

  /** Of a host that is off another does it: all reach the disks at the same path (docs/checkpoint.md). */
  async #onHost({ vm, host: own }: SetVm, what: string, script: string, signal: AbortSignal): Promise<void> {
    const { fleet } = this.#context;
    const others = Object.keys(fleet.cluster.hosts).filter((name) => !fleet.gone.has(name));
    const host = fleet.gone.has(own) ? (others[0] ?? own) : own;
    const { code, stderr } = await fleet.vmm.run(host, script, signal);
    if (code === 0) return;
    const words = stderr.trim().split("\n").pop() ?? "";
    throw new SymvirtError("rolledBack", `${host} cannot ${what} of ${vm}: ${words || `status ${code}`}`, {
      hint: "is there room, and is it the same folder on this machine and on every host?",
    });
  }
}
