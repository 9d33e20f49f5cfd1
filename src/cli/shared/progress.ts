/** How a cycle is shown while it runs: a task list on a terminal, plain lines otherwise; always on stderr. */
import { Listr, ListrLogger, ProcessOutput } from "listr2";
import type { SetPhase } from "../../controller/checkpoint/set-cycle.js";
import type { Phase } from "../../controller/cycle.js";
import type { CycleProgress } from "../../controller/runner.js";
import type { CycleTarget } from "../../controller/state/journal.js";
import { say } from "./talk.js";

type AnyPhase = Phase | SetPhase;

const names: Partial<Record<AnyPhase, string>> = {
  prepare: "prepare the destination",
  drain: "drain: nothing left on the wire",
  "tear-down": "tear-down: every rank lets go of the card",
  wait: "wait: the card has no user",
  detach: "detach the card",
  "pre-copy": "pre-copy",
  "switch-over": "switch over",
  attach: "attach the card",
  "link-up": "link-up",
  "re-init": "re-init: ranks run over openib",
  commit: "end the old process",
  hold: "begin the captures and hold them back",
  cut: "cut the wires, capture every VM, join the wires",
  save: "write memory and disks",
  keep: "write the manifest",
  load: "load every VM from the checkpoint",
  resume: "resume every VM",
  join: "join the wires",
  place: "note where the VMs are",
  "undo:settle": "roll-back: ranks finish what they have begun",
  "undo:park": "roll-back: ranks leave the card",
  "undo:detach-destination": "roll-back: detach the card",
  "undo:relaunch-source": "roll-back: start the source again",
  "undo:return": "roll-back: migrate back",
  "undo:end-destination": "roll-back: end the destination",
  "undo:resume-source": "roll-back: resume the source",
  "undo:attach-source": "roll-back: attach the card",
  "undo:link-up": "roll-back: link-up",
  "undo:re-init": "roll-back: ranks run over openib",
  "undo:release": "roll-back: every VM runs, wires joined",
  "undo:attach": "roll-back: attach the cards",
  "undo:end": "roll-back: end what was started",
};

export interface ProgressView {
  update(target: Pick<CycleTarget, "vm" | "set">, progress: CycleProgress<AnyPhase>): void;
  end(): Promise<void>;
}

/** What there is to say beside the phase's name: bytes, or who is late. */
function detailOf({ migration, late, hold }: CycleProgress<AnyPhase>): string {
  if (migration !== undefined) {
    const mib = (bytes: number) => Math.round(bytes / 2 ** 20);
    const waiting = hold === undefined || hold.late.length === 0 ? "" : ` but ${hold.late.length}`;
    const held = hold === undefined ? "" : `, its ranks are held${waiting}: ${hold.cause}`;
    return `${mib(migration.transferred)} MiB sent, ${mib(migration.remaining)} of ${mib(migration.total)} MiB left${held}`;
  }
  return late.length === 0 ? "" : `waiting: ${late.slice(0, 3).join("; ")}`;
}

export function openProgress(): ProgressView {
  const fancy = process.stderr.isTTY && process.env.TERM !== "dumb";
  return fancy ? taskList() : plainLines();
}

function plainLines(): ProgressView {
  let phase: AnyPhase | undefined;
  let told = 0;
  return {
    update: (target, progress) => {
      const vm = target.set === undefined ? target.vm : target.set.vms.map((v) => v.vm).join(", ");
      const name = names[progress.phase];
      const isNew = progress.phase !== phase;
      // Bytes at most every two seconds: the lines may go to a log.
      const isDue = progress.migration !== undefined && performance.now() - told > 2000;
      if (name === undefined || (!isNew && !isDue)) return;
      if (isNew && progress.phase.startsWith("undo:") && phase?.startsWith("undo:") !== true)
        say(`${vm}: rolling back: ${progress.cause ?? "unknown cause"}`);
      phase = progress.phase;
      told = performance.now();
      const detail = progress.migration === undefined ? "" : `: ${detailOf(progress)}`;
      say(`${vm}: ${name}${detail}`);
    },
    end: async () => undefined,
  };
}

type Task = { output: string };

/** One short task list after the other, as nobody knows beforehand which way a cycle goes. */
function taskList(): ProgressView {
  let shown: Promise<unknown> = Promise.resolve();
  let phase: AnyPhase | undefined;
  let task: Task | undefined;
  let finish: () => void = () => undefined;
  let last: CycleProgress<AnyPhase> | undefined;
  const begin = (title: string) => {
    const done = new Promise<void>((resolve) => {
      finish = resolve;
    });
    const list = new Listr(
      [
        {
          title,
          task: (_, wrapper) => {
            task = wrapper;
            if (last !== undefined) wrapper.output = detailOf(last);
            return done;
          },
        },
      ],
      // listr2 draws on stdout by default; that is for data.
      {
        rendererOptions: {
          logger: new ListrLogger({ processOutput: new ProcessOutput(process.stderr, process.stderr) }),
        },
      },
    );
    shown = shown.then(() => list.run());
  };
  return {
    update: (_, progress) => {
      last = progress;
      const title = names[progress.phase];
      if (title !== undefined && progress.phase !== phase) {
        phase = progress.phase;
        finish();
        begin(title);
      } else if (task !== undefined) task.output = detailOf(progress);
    },
    end: async () => {
      finish();
      await shown;
    },
  };
}
