/**
 * Runs the site's post-attach hook for each card that appears (the lab's makes the soft-RoCE device).
 * One run at a time for a card; after a failure again with back-off for as long as the card is there.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { accessSync, constants } from "node:fs";
import { join } from "node:path";
import type { Logger } from "pino";
import { errorCode } from "./addon.js";
import type { Card } from "./devices.js";
import { printable } from "./rank-wire.js";

const TIMEOUT_MS = 60_000;
const MAX_OUTPUT = 8192;
const MAX_BACKOFF_MS = 30_000;

interface Attachment {
  card: Card;
  state: "wanted" | "running" | "waiting" | "done";
  failures: number;
  timer: NodeJS.Timeout | undefined;
  child: ChildProcess | undefined;
  error: string;
}

export interface PostAttachOptions {
  /** Folder with the executable `post-attach`; without it nothing is run. */
  hooks: string;
  log: Logger;
  /** A run has ended: look at the devices again, the error may have changed. */
  ended: () => void;
  timeoutMs?: number;
  firstBackoffMs?: number;
}

export class PostAttach {
  readonly #options: PostAttachOptions;
  readonly #attachments = new Map<string, Attachment>();
  #first = true;
  #closed = false;

  constructor(options: PostAttachOptions) {
    this.#options = options;
  }

  /** The failure that now stands, for the host; "" when none. */
  get error(): string {
    for (const { error } of this.#attachments.values()) if (error !== "") return error;
    return "";
  }

  /** Takes the cards now present. At the first call a card with a verbs device needs no hook: the agent was restarted. */
  update(cards: readonly Card[]): void {
    if (this.#closed) return;
    const present = new Map(
      cards.filter((c) => c.netdev !== "" || c.verbs !== "").map((c) => [identity(c), c]),
    );
    for (const [id, attachment] of this.#attachments) if (!present.has(id)) this.#forget(id, attachment);
    for (const [id, card] of present) {
      const known = this.#attachments.get(id);
      if (known !== undefined) {
        known.card = card;
        continue;
      }
      const state = this.#first && card.verbs !== "" ? "done" : "wanted";
      const attachment: Attachment = {
        card,
        state,
        failures: 0,
        timer: undefined,
        child: undefined,
        error: "",
      };
      this.#attachments.set(id, attachment);
      if (state === "wanted") this.#run(attachment);
    }
    this.#first = false;
  }

  /** Ends running hooks. */
  close(): void {
    this.#closed = true;
    for (const [id, attachment] of this.#attachments) this.#forget(id, attachment);
  }

  #forget(id: string, attachment: Attachment): void {
    clearTimeout(attachment.timer);
    attachment.state = "done";
    killGroup(attachment.child);
    this.#attachments.delete(id);
  }

  #run(attachment: Attachment): void {
    const program = join(this.#options.hooks, "post-attach");
    try {
      accessSync(program, constants.X_OK);
    } catch (error) {
      if (errorCode(error) === "ENOENT") {
        attachment.state = "done";
        return;
      }
      this.#failed(attachment, `${program} cannot be executed (${errorCode(error)})`);
      return;
    }
    const { card } = attachment;
    const { log } = this.#options;
    const started = performance.now();
    attachment.state = "running";
    const child = spawn(program, [], {
      cwd: "/",
      // Its own process group, so that a time-out ends what it started as well.
      detached: true,
      stdio: ["ignore", "pipe", "pipe"],
      env: {
        PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        SYMVIRT_PCI: card.pci,
        SYMVIRT_NETDEV: card.netdev,
        SYMVIRT_MAC: card.mac,
      },
    });
    attachment.child = child;
    let output = "";
    const collect = (chunk: Buffer) => {
      output = (output + chunk.toString("utf8")).slice(-MAX_OUTPUT);
    };
    child.stdout.on("data", collect);
    child.stderr.on("data", collect);
    let timedOut = false;
    const timeoutMs = this.#options.timeoutMs ?? TIMEOUT_MS;
    const timer = setTimeout(() => {
      timedOut = true;
      killGroup(child);
    }, timeoutMs);
    let ended = false;
    const end = (reason: string | undefined) => {
      if (ended) return;
      ended = true;
      clearTimeout(timer);
      attachment.child = undefined;
      if (attachment.state !== "running") return;
      const ms = Math.round(performance.now() - started);
      const said = printable(output.trim().replaceAll("\n", " | "));
      if (reason === undefined) {
        attachment.state = "done";
        attachment.error = "";
        log.info({ pci: card.pci, netdev: card.netdev, ms, output: said }, "post-attach hook done");
      } else {
        log.error(
          { pci: card.pci, netdev: card.netdev, ms, output: said, reason },
          "post-attach hook failed",
        );
        this.#failed(attachment, said === "" ? reason : `${reason}: ${said.slice(-160)}`);
      }
      this.#options.ended();
    };
    child.once("error", (error) => end(error.message));
    // "exit" and not "close": something the hook left running may keep the pipes open.
    child.once("exit", (code, signal) => {
      if (timedOut) end(`no end within ${timeoutMs / 1000} s`);
      else if (code === 0) end(undefined);
      else end(code === null ? `killed by ${signal ?? "a signal"}` : `exit ${code}`);
    });
  }

  #failed(attachment: Attachment, reason: string): void {
    attachment.error = `post-attach for ${attachment.card.pci}: ${reason}`.slice(0, 256);
    attachment.state = "waiting";
    const backoff = Math.min(
      MAX_BACKOFF_MS,
      (this.#options.firstBackoffMs ?? 1000) * 2 ** attachment.failures++,
    );
    attachment.timer = setTimeout(() => this.#run(attachment), backoff);
  }
}

/** A card at the same address with another interface is another card. */
function identity(card: Card): string {
  return `${card.pci} ${card.ifindex}`;
}

function killGroup(child: ChildProcess | undefined): void {
  if (child?.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  try {
    process.kill(-child.pid, "SIGKILL");
  } catch (error) {
    if (errorCode(error) !== "ESRCH") throw error;
  }
}
