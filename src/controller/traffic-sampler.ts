/**
 * Follows the ranks' byte counters while a cycle runs: asks the agents at a fixed pace and passes on what they measured,
 * with the time of arrival. A VM that does not answer (it stands still, its channel moves to another host) has no
 * sample in that time; nothing is put in its place.
 */
import type { Route, Traffic } from "../protocol/messages.js";
import type { Fleet } from "./fleet.js";
import type { GuestLink } from "./guest-link.js";
import type { CycleTarget } from "./state/journal.js";

/** One rank's counters at one moment. */
export interface TrafficSample {
  job: string;
  rank: number;
  vm: string;
  /** Host clock when the agent's answer came, milliseconds since 1970; the counters were read after `askedMs`. */
  atMs: number;
  askedMs: number;
  route: Route;
  /** Since the job's start. */
  openib: Traffic;
  tcp: Traffic;
}

export interface Sampling {
  everyMs: number;
  onSample: (sample: TrafficSample) => void;
}

/** A question without an answer for so long is given up: its VM or its connection was not there. */
const PATIENCE_MS = 1000;

/** Samples the target's ranks until the returned function is called. */
export function followTraffic(
  fleet: Fleet,
  target: CycleTarget,
  { everyMs, onSample }: Sampling,
): () => void {
  const jobs = new Set(target.jobs.map((j) => j.job));
  const vms = new Set(target.jobs.flatMap((j) => j.ranks.map((r) => r.vm)));
  const followed = [...vms].map((vm) => followVm(fleet.link(vm)));

  function followVm(link: GuestLink): { ask: () => void; end: () => void } {
    const { vm } = link;
    let id = 0;
    let open: { id: number; askedMs: number } | undefined;
    const onAnswer = (sample: { answer: number; ranks: readonly SampledRank[] }) => {
      if (open === undefined || sample.answer !== open.id) return;
      const { askedMs } = open;
      const atMs = Date.now();
      open = undefined;
      for (const { job, rank, route, openib, tcp } of sample.ranks)
        if (jobs.has(job) && fleet.roster.owns(vm, job, rank))
          onSample({ job, rank, vm, atMs, askedMs, route, openib, tcp });
    };
    // What was asked over the connection before is not answered on this one.
    const onHello = () => {
      open = undefined;
    };
    link.on("sample", onAnswer);
    link.on("hello", onHello);
    return {
      ask: () => {
        const askedMs = Date.now();
        if (open !== undefined && askedMs - open.askedMs < PATIENCE_MS) return;
        // Set first: a short way may bring the answer before askSample returns.
        open = { id: ++id, askedMs };
        if (!link.askSample(id)) open = undefined;
      },
      end: () => {
        link.off("sample", onAnswer);
        link.off("hello", onHello);
      },
    };
  }

  const tick = () => {
    for (const { ask } of followed) ask();
  };
  const timer = setInterval(tick, everyMs);
  tick();
  return () => {
    clearInterval(timer);
    for (const { end } of followed) end();
  };
}

interface SampledRank {
  job: string;
  rank: number;
  route: Route;
  openib: Traffic;
  tcp: Traffic;
}
