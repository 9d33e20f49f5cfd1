/** placement.json: where each VM runs and which cards it has. A memory only: the VMM is asked before it is believed. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { writeDurably } from "../../checkpoint/durable.js";
import { SymvirtError } from "../../errors.js";
import type { Cluster } from "../cluster-file.js";

const schema = z.object({
  schemaVersion: z.literal(1),
  vms: z.record(z.string(), z.object({ host: z.string(), cards: z.record(z.string(), z.string()) })),
});

export interface VmPlace {
  host: string;
  /** tag -> name of a card of that host */
  cards: Record<string, string>;
}

/** Where the cluster file says a VM is at first. */
function firstPlace(cluster: Cluster, name: string): VmPlace {
  const vm = cluster.vms[name];
  const cards: Record<string, string> = {};
  for (const [tag, slot] of Object.entries(vm?.cards ?? {}))
    if (slot.card !== undefined) cards[tag] = slot.card;
  return { host: vm?.host ?? "", cards };
}

export class Placement {
  readonly path: string;
  readonly #cluster: Cluster;

  constructor(cluster: Cluster) {
    this.#cluster = cluster;
    this.path = join(cluster.state, "placement.json");
  }

  /** Every VM of the cluster file. A VM whose recorded host is no longer in the file is where the file says. */
  read(): Map<string, VmPlace> {
    const recorded = this.#recorded();
    return new Map(
      Object.keys(this.#cluster.vms).map((name) => {
        const place = recorded[name];
        const known = place !== undefined && this.#cluster.hosts[place.host] !== undefined;
        return [name, known ? place : firstPlace(this.#cluster, name)];
      }),
    );
  }

  of(name: string): VmPlace {
    return this.read().get(name) ?? firstPlace(this.#cluster, name);
  }

  /** Records one VM's place; on the disk (file and folder) when it returns. */
  write(name: string, place: VmPlace): void {
    const vms = { ...this.#recorded(), [name]: place };
    writeDurably(this.path, `${JSON.stringify({ schemaVersion: 1, vms }, null, 2)}\n`);
  }

  #recorded(): Record<string, VmPlace> {
    if (!existsSync(this.path)) return {};
    try {
      return schema.parse(JSON.parse(readFileSync(this.path, "utf8"))).vms;
    } catch (cause) {
      throw new SymvirtError("internal", `the placement file ${this.path} is damaged`, {
        hint: "move it away: symvirt then starts from the hosts of the cluster file and asks the VMMs",
        cause,
      });
    }
  }
}
