/** How a checkpoint or restart ends: its outcome, and one sentence that says what is now and what is to do. */
import type { CycleOutcome } from "../report.js";
import type { SetState, SetStep } from "./set-cycle.js";

/** All that was to do is done: how it ended, by what went wrong on the way. */
export function finish(state: SetState): SetStep {
  const { shape, cause, losses, kept } = state;
  const { verb, checkpoint, hasJobs, vms } = shape;
  const list = vms.join(", ");
  const lost = losses.join("; ");
  if (verb === "restart") {
    if (cause !== undefined)
      return end(
        state,
        "rolled-back",
        `${cause}; ${list} do not run, the checkpoint ${checkpoint} is as it was: put that right, then run \`symvirt restart ${checkpoint}\` again`,
      );
    if (losses.length > 0)
      return end(
        state,
        "needs-operator",
        `${list} run from checkpoint ${checkpoint}, but ${lost}: start that job again`,
      );
    return end(
      state,
      "done",
      `${list} run from checkpoint ${checkpoint}${hasJobs ? ", their ranks over openib" : ""}`,
    );
  }
  if (kept && losses.length > 0)
    return end(
      state,
      "needs-operator",
      `checkpoint ${checkpoint} is complete, but ${lost}: \`symvirt restart ${checkpoint}\` goes back to it`,
    );
  if (losses.length > 0)
    return end(state, "needs-operator", `${cause ?? "no checkpoint"}; and ${lost}: start that job again`);
  if (kept) {
    const trouble = cause === undefined ? "" : ` (at the second try: ${cause})`;
    return end(state, "done", `checkpoint ${checkpoint} of ${list} is complete${trouble}`);
  }
  return end(
    state,
    "rolled-back",
    `${cause ?? "nothing was done"}; ${list} run as before, there is no new checkpoint`,
  );
}

/** Nothing the controller can do: one sentence for a person. */
export function operator(state: SetState, trouble: string): SetStep {
  const { cause, kept, shape } = state;
  const why = cause === undefined || cause === trouble ? trouble : `${cause}, and then ${trouble}`;
  const done = kept ? `checkpoint ${shape.checkpoint} is complete, but ` : "";
  const held = shape.hasJobs && shape.strategy === "park" ? ", and ranks may be held" : "";
  const list = shape.vms.join(", ");
  const what =
    state.phase === "place"
      ? `${list} run from checkpoint ${shape.checkpoint}, but where they run is not noted or their old disks are not removed: put that right, then run \`symvirt abort\` to finish`
      : shape.verb === "restart"
        ? `a QEMU of ${list} may be left: put that right, then run \`symvirt abort\` to finish`
        : `cards of ${list} may be away${held}: put that right and run \`symvirt abort\` to finish, or end the VMs that are left and run \`symvirt restart\` with a checkpoint`;
  return {
    state: { ...state, phase: "ended", todo: [] },
    effects: [
      {
        do: "end",
        outcome: "needs-operator",
        message: `${done}${why}; ${what}`,
        unfinished: true,
      },
    ],
  };
}

function end(state: SetState, outcome: CycleOutcome, message: string): SetStep {
  return {
    state: { ...state, phase: "ended", todo: [] },
    effects: [{ do: "end", outcome, message, unfinished: false }],
  };
}
