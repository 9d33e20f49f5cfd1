/** Starts and ends QEMU processes of the cluster file: at a cold start, and as a migration's destination. */
import type { Card, Cluster, Host, Vm } from "../../controller/cluster-file.js";
import { SymvirtError } from "../../errors.js";
import { fill, type HostResult, quote, runOnHost } from "./run-on-host.js";

export interface VmPaths {
  qmp: string;
  channel: string;
  pidfile: string;
  runtime: string;
}

function lookUp(cluster: Cluster, vm: string, host: string): { vm: Vm; host: Host } {
  const foundVm = Object.hasOwn(cluster.vms, vm) ? cluster.vms[vm] : undefined;
  if (foundVm === undefined)
    throw new SymvirtError("usage", `Unknown VM "${vm}"`, {
      hint: `cluster "${cluster.name}" has ${Object.keys(cluster.vms).join(", ") || "none"}`,
    });
  const foundHost = Object.hasOwn(cluster.hosts, host) ? cluster.hosts[host] : undefined;
  if (foundHost === undefined)
    throw new SymvirtError("usage", `Unknown host "${host}"`, {
      hint: `cluster "${cluster.name}" has ${Object.keys(cluster.hosts).join(", ") || "none"}`,
    });
  return { vm: foundVm, host: foundHost };
}

/** Sockets and pid file of a VM on a host, placeholders replaced. Throws a usage error for an unknown name. */
export function vmPaths(cluster: Cluster, vm: string, host: string): VmPaths {
  const found = lookUp(cluster, vm, host);
  const values = { vm, host, runtime: found.host.runtime };
  return {
    qmp: fill(found.vm.qmp, values),
    channel: fill(found.vm.channel, values),
    pidfile: fill(found.vm.pidfile, values),
    runtime: found.host.runtime,
  };
}

/** Value of a `-device` option for a card: "driver,id=TAG,bus=BUS,key=value,…" with commas doubled as QEMU wants; pure. */
export function deviceArgument(tag: string, bus: string, card: Card): string {
  const options = { id: tag, bus, ...card.options };
  const text = (value: string | number | boolean): string =>
    typeof value === "boolean" ? (value ? "on" : "off") : String(value).replaceAll(",", ",,");
  return [card.driver, ...Object.entries(options).map(([key, value]) => `${key}=${text(value)}`)].join(",");
}

export interface LaunchOptions {
  cluster: Cluster;
  vm: string;
  host: string;
  /** True: as a destination that waits for `migrate-incoming`; cards are then plugged in after the migration. */
  incoming: boolean;
  /** By tag; given as `-device` at a cold start, ignored for `incoming`. */
  cards?: Readonly<Record<string, Card>>;
  signal: AbortSignal;
}

/** Arguments of the whole QEMU command, placeholders replaced; pure. */
export function launchArguments(options: Omit<LaunchOptions, "signal">): string[] {
  const { vm, host } = lookUp(options.cluster, options.vm, options.host);
  const values = { vm: options.vm, host: options.host, runtime: host.runtime };
  const argv = vm.command.map((word) => fill(word, values));
  if (options.incoming) return [...argv, "-incoming", "defer"];
  for (const [tag, card] of Object.entries(options.cards ?? {})) {
    const slot = vm.cards[tag];
    if (slot === undefined)
      throw new SymvirtError("usage", `VM "${options.vm}" has no card slot "${tag}"`, {
        hint: `add it under vms.${options.vm}.cards in the cluster file`,
      });
    argv.push("-device", deviceArgument(tag, slot.bus, card));
  }
  return argv;
}

/**
 * How long a launch may go on after its abort. Killing it half-way could leave a daemon that has not
 * written its pid file yet and so cannot be ended; QEMU takes well under a second to get there.
 */
const ABORT_GRACE_MS = 3000;
/** For ending what a failed launch may have left. */
const CLEAN_UP_MS = 10_000;

/**
 * Starts a VM's QEMU on a host; resolves when it has daemonised, its sockets being there then.
 * On failure or abort nothing of it is left running; the error carries QEMU's own words.
 */
export async function launchQemu(options: LaunchOptions): Promise<void> {
  const { cluster, vm, host, signal } = options;
  signal.throwIfAborted();
  const argv = launchArguments(options);
  const { runtime } = vmPaths(cluster, vm, host);
  const script = `mkdir -p ${quote(runtime)} && exec ${argv.map(quote).join(" ")} </dev/null\n`;
  const kill = new AbortController();
  let grace: NodeJS.Timeout | undefined;
  const onAbort = (): void => {
    grace = setTimeout(() => kill.abort(signal.reason), ABORT_GRACE_MS);
  };
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    const result = await runOnHost(cluster.hosts[host]?.run ?? [], script, kill.signal);
    signal.throwIfAborted();
    if (result.code !== 0) throw launchFailure(vm, host, argv, result);
  } catch (failure) {
    // What the launch says is what is to be told; the way back ends what is left once more.
    await endQemu(cluster, vm, host, { signal: AbortSignal.timeout(CLEAN_UP_MS) }).catch(() => undefined);
    throw failure;
  } finally {
    clearTimeout(grace);
    signal.removeEventListener("abort", onAbort);
  }
}

function launchFailure(vm: string, host: string, argv: readonly string[], result: HostResult): SymvirtError {
  const words = result.stderr.trim() || `no message, status ${result.code}`;
  return new SymvirtError("needsOperator", `QEMU for "${vm}" on "${host}" did not start: ${words}`, {
    hint: `try its command by hand on the host: ${argv.slice(0, 3).join(" ")} …`,
  });
}

/** Seconds QEMU gets to end on SIGTERM before SIGKILL, and then to be gone. */
const TERM_SECONDS = 5;

/**
 * Ends the VM's QEMU on a host by the pid of its pid file, if that process still is this QEMU (its
 * command line names the pid file); waits until it is gone and removes pid file and sockets. Idempotent.
 */
export async function endQemu(
  cluster: Cluster,
  vm: string,
  host: string,
  options: { force?: boolean; signal?: AbortSignal } = {},
): Promise<void> {
  const { pidfile, qmp, channel } = vmPaths(cluster, vm, host);
  const script = `
pidfile=${quote(pidfile)}
pid=$(cat "$pidfile" 2>/dev/null) || pid=
is_ours() { [ -n "$pid" ] && tr '\\0' '\\n' 2>/dev/null <"/proc/$pid/cmdline" | grep -qxF -- "$pidfile"; }
wait_gone() { n=0; while is_ours; do n=$((n + 1)); [ $n -le $(($1 * 20)) ] || return 1; sleep 0.05; done; }
if is_ours; then
  ${options.force === true ? "" : `kill -TERM "$pid" 2>/dev/null; wait_gone ${TERM_SECONDS} ||`} kill -KILL "$pid" 2>/dev/null
  wait_gone ${TERM_SECONDS} || { echo "process $pid does not end" >&2; exit 1; }
fi
rm -f "$pidfile" ${quote(qmp)} ${quote(channel)}
`;
  const result = await runOnHost(cluster.hosts[host]?.run ?? [], script, options.signal);
  if (result.code !== 0)
    throw new SymvirtError(
      "needsOperator",
      `Cannot end QEMU of "${vm}" on "${host}": ${result.stderr.trim()}`,
      {
        hint: `look at the process named in ${pidfile}`,
      },
    );
}
