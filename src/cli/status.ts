/** `symvirt status`: VMs, agents, jobs and the running cycle. */
import { Command } from "commander";
import { Controller } from "../controller/script.js";
import { rankList } from "../controller/plan-strategy.js";
import type { JobStatus, RankStatus, StatusReport, VmStatus } from "../controller/snapshot.js";
import { type ClusterFlags, clusterPathOf, withCluster } from "./shared/options.js";
import { type ServerFlags, serverOf, withServer } from "./shared/server.js";
import { catchingSignals } from "./shared/stop.js";
import { data, printJson, style, table } from "./shared/talk.js";

export function statusCommand(): Command {
  return withServer(withCluster(new Command("status")))
    .description("Show where each VM runs, what its agent says, the jobs' ranks and the running cycle")
    .option("--peers", "also each rank's route to each peer, and the bytes sent to it over openib and tcp")
    .addHelpText("after", "\nExample:\n  symvirt status --peers")
    .action(async (flags: ClusterFlags & ServerFlags & { peers?: boolean }) => {
      await catchingSignals(async ({ signal }) => {
        const remote = await serverOf(flags);
        if (remote !== undefined) {
          const path = `/v1/status?peers=${flags.peers === true}`;
          const answer = (await remote.client.call(remote.target, "GET", path, { signal })) as ServedStatus;
          if (flags.json === true) printJson(answer);
          else for (const line of [...serverLines(answer), ...statusLines(answer)]) data(line);
          return;
        }
        const controller = await Controller.open(clusterPathOf(flags));
        const status = await controller.status(signal, { peers: flags.peers === true });
        if (flags.json === true) printJson(status);
        else for (const line of statusLines(status)) data(line);
      }, "stopping");
    });
}

interface ServedStatus extends StatusReport {
  server: {
    operation: { what: string; by: string; state: string } | null;
    policy: {
      reactive: { message: string; needsOperator: boolean } | null;
      proactive: { hosts: { host: string; state: string; message: string }[] } | null;
    };
  };
}

/** What the server does by itself. */
function serverLines({ server: { operation, policy } }: ServedStatus): string[] {
  const { reactive, proactive } = policy;
  const alert = (h: { host: string; state: string; message: string }) =>
    `alert for ${h.host}: evacuation ${h.state}${h.message === "" ? "" : `: ${h.message}`}`;
  return [
    ...(operation === null ? [] : [`${operation.what}: ${operation.state}, by ${operation.by}`]),
    ...(reactive === null
      ? []
      : [reactive.needsOperator ? style(process.stdout, "red", reactive.message) : reactive.message]),
    ...(proactive?.hosts ?? []).map(alert),
  ];
}

/** The status for people. */
export function statusLines(status: StatusReport): string[] {
  const advise = status.running === null && status.interrupted === null;
  const jobs = status.jobs.flatMap((job) => [
    ...jobLines(job),
    ...awayLines(job, advise),
    ...peerLines(job.ranks),
  ]);
  return [...cycleLines(status), ...vmLines(status.vms), ...jobs];
}

function cycleLines({ running, interrupted }: StatusReport): string[] {
  if (interrupted !== null) {
    const { what, phase, message } = interrupted;
    const text = `${what} in phase ${phase}: ${message}`;
    return [style(process.stdout, "red", text), "  run `symvirt abort` to finish it"];
  }
  if (running === null) return [];
  if (!("cycle" in running)) return [`${running.verb} (pid ${running.pid}) is planning`];
  const { cycle, verb, vm, from, to, phase, late, cause, migration, hold } = running;
  const lines = [`cycle ${cycle}: ${verb} ${vm} from ${from} to ${to}, phase ${phase} (pid ${running.pid})`];
  if (cause !== undefined) lines.push(`  rolling back: ${cause}`);
  if (migration !== undefined)
    lines.push(`  ${megabytes(migration.transferred)} sent, ${megabytes(migration.remaining)} left`);
  if (hold !== undefined) lines.push(`  the ranks of ${vm} are held: ${hold.cause}`);
  for (const who of hold?.late ?? []) lines.push(`  not held yet: ${who}`);
  for (const who of late) lines.push(`  waiting: ${who}`);
  return lines;
}

function vmLines(vms: readonly VmStatus[]): string[] {
  const rows = vms.map((v) => {
    const ports = v.devices.map((d) => `${d.verbs || d.netdev}:${d.port || "no port"}`).join(" ");
    const agent = v.agent.answers ? `agent ${v.agent.version}` : "agent silent";
    return [v.vm, v.host, v.status, v.cards.join(",") || "-", agent, ports || "-"];
  });
  const head = [["VM", "HOST", "STATUS", "CARDS", "AGENT", "PORTS"]];
  const troubles = vms.filter((v) => v.trouble !== "").map((v) => `${v.vm}: ${v.trouble}`);
  return [...table([...head, ...rows]), ...troubles];
}

function jobLines({ job, worldSize, ranks }: JobStatus): string[] {
  const head = ["RANK", "VM", "PID", "STATE", "ROUTE", "EPOCH", "OPENIB SENT", "TCP SENT", ""];
  const rows = ranks.map(({ rank, vm, report: r }) => [
    `${rank}`,
    vm,
    `${r.pid}`,
    r.state,
    r.route,
    `${r.epoch}`,
    megabytes(r.openib.sentBytes),
    megabytes(r.tcp.sentBytes),
    r.detail,
  ]);
  return ["", `job ${job}: ${ranks.length} of ${worldSize} ranks`, ...table([head, ...rows])];
}

/** Which ranks have no route but tcp. While a cycle is on that is its business; otherwise there is something to do. */
function awayLines({ ranks, away }: JobStatus, advise: boolean): string[] {
  const count = away.reduce((sum, a) => sum + a.ranks.length, 0);
  const others = count === ranks.length ? "" : "; the others keep openib among themselves";
  return away.map((a) => {
    const text = `${rankList(a.ranks)} on ${a.vm} ${a.ranks.length === 1 ? "runs" : "run"} over tcp with every peer${others}`;
    return advise ? `${text}; \`symvirt recover ${a.vm}\` brings openib back` : text;
  });
}

function peerLines(ranks: readonly RankStatus[]): string[] {
  if (ranks.every((r) => r.peers === undefined)) return [];
  const rows = ranks.flatMap(({ rank, vm, peers }) => {
    const vmOf = (peer: number) => ranks.find((r) => r.rank === peer)?.vm ?? "?";
    if (peers === null || peers === undefined) return [[`${rank}@${vm}`, "not told", "", "", "", ""]];
    return peers.map((p) => [
      ...[`${rank}@${vm}`, `${p.rank}@${vmOf(p.rank)}`, p.route, `${p.epoch}`],
      ...[megabytes(p.openib.bytes), megabytes(p.tcp.bytes)],
    ]);
  });
  return ["", ...table([["FROM", "TO", "ROUTE", "EPOCH", "OPENIB SENT", "TCP SENT"], ...rows])];
}

function megabytes(bytes: number): string {
  return `${(bytes / 2 ** 20).toFixed(1)} MiB`;
}
