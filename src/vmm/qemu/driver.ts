/** VmDriver over QMP: one QEMU process of one VM on one host. */
import type { Duplex } from "node:stream";
import type { Card, Cluster } from "../../controller/cluster-file.js";
import { SymvirtError } from "../../errors.js";
import { anySignal } from "../../signals.js";
import { dial } from "../dial.js";
import type {
  CaptureFacts,
  CaptureOptions,
  MigrateOptions,
  MigrationProgress,
  VmDriver,
  VmFacts,
} from "../driver.js";
import { attachCard } from "./attach.js";
import { abandonCapture, captureFacts, captureVm, restoreVm } from "./capture.js";
import { detachCard } from "./detach.js";
import { inspectVm } from "./inspect.js";
import { endQemu, vmPaths } from "./launch.js";
import { announce, nics, setLinks } from "./links.js";
import { type ListenAddress, listenIncoming } from "./listen.js";
import { cancelMigration, migrateVm } from "./migrate.js";
import { pauseVm, resumeVm } from "./run-state.js";
import { QemuSession, type QemuTarget } from "./session.js";

/** QEMU quits at once; if it does not, it is ended by pid. */
const QUIT_MS = 3_000;

export interface QemuDriverOptions {
  target: QemuTarget;
  /** Cards of the VM by the cluster file: tag, and the root port for it. */
  cards: ReadonlyMap<string, string>;
  listen: ListenAddress;
  /** Ends the process by its pid; succeeds when there is none. */
  end: (signal: AbortSignal) => Promise<void>;
}

export class QemuDriver implements VmDriver {
  readonly vm: string;
  readonly host: string;
  readonly #options: QemuDriverOptions;
  readonly #session: QemuSession;

  constructor(options: QemuDriverOptions) {
    this.vm = options.target.vm;
    this.host = options.target.host;
    this.#options = options;
    this.#session = new QemuSession(options.target);
  }

  inspect(signal: AbortSignal): Promise<VmFacts> {
    return inspectVm(this.#session, this.#options.cards, signal);
  }

  openChannel(signal: AbortSignal): Promise<Duplex> {
    const { dial: argv, channel } = this.#options.target;
    return dial({ dial: argv, socket: channel, what: `agent channel of ${this.#session.name}` }, signal);
  }

  detach(tag: string, signal: AbortSignal): Promise<void> {
    return detachCard(this.#session, tag, signal);
  }

  attach(tag: string, bus: string, card: Card, signal: AbortSignal): Promise<void> {
    return attachCard(this.#session, { tag, bus, card }, signal);
  }

  migrate(options: MigrateOptions): Promise<MigrationProgress> {
    return migrateVm(this.#session, options);
  }

  cancelMigration(signal: AbortSignal): Promise<"runs-here" | "moved"> {
    return cancelMigration(this.#session, signal);
  }

  listen(signal: AbortSignal): Promise<string> {
    return listenIncoming(this.#session, this.#options.listen, signal);
  }

  resume(signal: AbortSignal, options?: { evenIfMoved?: boolean }): Promise<void> {
    return resumeVm(this.#session, signal, options);
  }

  pause(signal: AbortSignal): Promise<void> {
    return pauseVm(this.#session, signal);
  }

  nics(signal: AbortSignal): Promise<string[]> {
    return nics(this.#session, this.#options.cards, signal);
  }

  setLinks(names: readonly string[], up: boolean, signal: AbortSignal): Promise<void> {
    return setLinks(this.#session, names, up, signal);
  }

  announce(signal: AbortSignal): Promise<void> {
    return announce(this.#session, signal);
  }

  captureFacts(signal: AbortSignal): Promise<CaptureFacts> {
    return captureFacts(this.#session, signal);
  }

  capture(options: CaptureOptions): Promise<void> {
    return captureVm(this.#session, options);
  }

  abandonCapture(gate: string, signal: AbortSignal): Promise<void> {
    return abandonCapture(this.#session, gate, signal);
  }

  restore(source: string, signal: AbortSignal): Promise<void> {
    return restoreVm(this.#session, source, signal);
  }

  async quit(signal: AbortSignal): Promise<void> {
    const limited = anySignal([signal, AbortSignal.timeout(QUIT_MS)]);
    try {
      await this.#session.execute("quit", {}, limited);
    } catch (error) {
      // No QMP, no answer or a refusal: what counts is that the process ends, and that is by its pid.
      if (!(error instanceof SymvirtError)) throw error;
    }
    await this.#session.close();
    await this.#options.end(signal);
  }

  close(): Promise<void> {
    return this.#session.close();
  }

  end(): Promise<void> {
    return this.#session.end();
  }
}

/** Where the VMM of `vm` on `host` is reached. Throws "usage" for a name that `cluster` does not know. */
export function qemuTarget(cluster: Cluster, vm: string, host: string): QemuTarget {
  const { qmp, channel } = vmPaths(cluster, vm, host); // says which name is unknown
  return { vm, host, dial: cluster.hosts[host]?.dial ?? [], qmp, channel };
}

/** The driver of `vm` on `host`, both names of `cluster`; connects when first used. */
export function openQemuDriver(cluster: Cluster, vm: string, host: string): QemuDriver {
  const target = qemuTarget(cluster, vm, host);
  const hostEntry = cluster.hosts[host];
  const cards = Object.entries(cluster.vms[vm]?.cards ?? {});
  return new QemuDriver({
    target,
    cards: new Map(cards.map(([tag, { bus }]) => [tag, bus])),
    listen: { address: hostEntry?.address ?? "", ports: hostEntry?.ports ?? { from: 1, to: 0 } },
    end: (signal) => endQemu(cluster, vm, host, { signal }),
  });
}
