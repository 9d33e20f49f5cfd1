/**
 * Whether the QEMU process of a VM is on a host, and its end for certain. A process is known by its command line, which
 * names the VM's pid file by its full path: the file itself may be gone, or name a process that is no QEMU.
 */
import type { Cluster } from "../../controller/cluster-file.js";
import { SymvirtError } from "../../errors.js";
import { vmPaths } from "./launch.js";
import { quote, runOnHost } from "./run-on-host.js";

/** Seconds a killed process gets to be gone. One that waits for a dead disk in the kernel does not go. */
const KILL_SECONDS = 10;

/**
 * Shell lines that define `pids FILE`: the processes with that word in their command line. The pattern comes by
 * standard input, or grep would find itself. A host without /proc, one that
 * hides the processes of others (hidepid), or whose grep cannot do it, answers with a failure.
 */
const PIDS = `
[ -r /proc/self/cmdline ] && [ -r /proc/1/cmdline ] || exit 9
probe=$(printf 'a\\0symvirt\\0' | grep -czxF -e symvirt) && [ "$probe" = 1 ] || exit 9
pids() { printf '%s\\n' "$1" | grep -lzxF -f - /proc/[0-9]*/cmdline 2>/dev/null | while IFS=/ read -r _ _ pid _; do
  read -r _ _ state _ <"/proc/$pid/stat" 2>/dev/null; [ "$state" = Z ] || echo "$pid"; done; }
`;

/** For each VM whether its process is on the host. Rejects when the host cannot be asked. */
export async function presentVms(
  cluster: Cluster,
  host: string,
  vms: readonly string[],
  signal: AbortSignal,
): Promise<Map<string, boolean>> {
  const questions = vms.map(
    (vm) => `echo "$(pids ${quote(vmPaths(cluster, vm, host).pidfile)} | wc -l) ${vm}"`,
  );
  const lines = (await ask(cluster, host, `${PIDS}${questions.join("\n")}\n`, signal)).trim().split("\n");
  return new Map(
    vms.map((vm) => {
      const line = lines.find((l) => l.endsWith(` ${vm}`));
      if (line === undefined) throw silent(host, "its answer is not complete");
      return [vm, Number.parseInt(line, 10) > 0];
    }),
  );
}

/** Pids of a VM's processes on the host. Rejects when the host cannot be asked. */
export async function pidsOf(
  cluster: Cluster,
  host: string,
  vm: string,
  signal: AbortSignal,
): Promise<number[]> {
  const { pidfile } = vmPaths(cluster, vm, host);
  const lines = (await ask(cluster, host, `${PIDS}pids ${quote(pidfile)}\necho ok\n`, signal))
    .trim()
    .split("\n");
  if (lines.pop() !== "ok") throw silent(host, "its answer is not complete");
  return lines.map(Number);
}

/** Kills the processes of these VMs on the host and resolves when none of them is there any more. */
export async function killVms(
  cluster: Cluster,
  host: string,
  vms: readonly string[],
  signal: AbortSignal,
): Promise<void> {
  const files = vms.map((vm) => quote(vmPaths(cluster, vm, host).pidfile)).join(" ");
  const script = `${PIDS}
for file in ${files}; do
  n=0
  while left=$(pids "$file"); [ -n "$left" ]; do
    n=$((n + 1)); [ $n -le $((${KILL_SECONDS} * 10)) ] || { echo "left $left"; exit 0; }
    kill -KILL $left 2>/dev/null
    sleep 0.1
  done
done
echo gone
`;
  const answer = (await ask(cluster, host, script, signal)).trim();
  if (answer === "gone") return;
  throw new SymvirtError(
    "needsOperator",
    `process ${answer.replace(/^left /, "").replaceAll("\n", ", ")} on host ${host} does not end on SIGKILL`,
    { hint: `look at it on ${host}; a process in state D waits for its disk` },
  );
}

async function ask(cluster: Cluster, host: string, script: string, signal: AbortSignal): Promise<string> {
  const result = await runOnHost(cluster.hosts[host]?.run ?? [], script, signal).catch((error: unknown) => {
    if (error instanceof SymvirtError) throw error;
    throw silent(host, "no answer in time");
  });
  if (result.code === 0) return result.stdout;
  throw silent(
    host,
    result.code === 9
      ? "it has no /proc, hides the processes of others, or has no GNU grep"
      : `status ${result.code}`,
  );
}

function silent(host: string, why: string): SymvirtError {
  return new SymvirtError("unreachable", `host ${host} does not say which VMs run there (${why})`, {
    hint: `check hosts.${host}.run in the cluster file`,
  });
}
