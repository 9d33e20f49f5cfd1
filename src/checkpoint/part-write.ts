/**
 * The command by which a host writes one part: a POSIX sh script that takes the stream on standard input. It runs
 * where the VMM runs, without symvirt; all it needs are zstd and coreutils. Pure: text in, text out.
 *
 * What a part's writer leaves beside it, until the checkpoint is committed: `FILE.writer` (who it is, so that `sweep`
 * knows whether it lives) and at its end `FILE.result` (part-result.ts).
 */
import { quote } from "../vmm/qemu/run-on-host.js";
import { isPartFile, type Part } from "./manifest.js";

export interface PartWriteOptions {
  /** Absolute path of the part, in the checkpoint's folder. */
  path: string;
  encoding: Part["encoding"];
  /** Of zstd, 1 to 19. */
  level: number;
  /** Threads of zstd; 0 (default): as many as the host has processors. */
  threads?: number;
  /**
   * The command ends at once and a background process goes on reading. QEMU waits for the command of an `exec:`
   * migration inside its main loop: with the VM running that would be a pause as long as the last compress and fsync.
   */
  detached?: boolean;
}

export const resultOf = (part: string): string => `${part}.result`;
export const writerOf = (part: string): string => `${part}.writer`;

/**
 * The script. Exit 0: the part is whole on the disk and the result says so. Otherwise the part is gone, and the
 * result (and stderr) names the stage that failed and its words. (Detached: exit 0 always; read the result.)
 * The end of the stream is not judged: of a VMM that dies in the middle it looks the same. Ask the VMM.
 */
export function partWriteCommand(options: PartWriteOptions): string {
  const script = writeScript(options);
  if (options.detached !== true) return script;
  // A background command of sh has /dev/null as its input unless it is told otherwise.
  return `exec 3<&0\nsetsid sh -c ${quote(script)} <&3 3<&- >/dev/null 2>&1 &\nexit 0\n`;
}

/**
 * The stages tell their statuses on descriptor 3, as sh has only that of the last one of a pipe. dd is there for its
 * count of bytes. A stage that fails ends those before it by a closed pipe, so the last that failed is the cause.
 */
function writeScript({ path, encoding, level, threads = 0 }: PartWriteOptions): string {
  if (!isPartFile(path.slice(path.lastIndexOf("/") + 1)) || !path.startsWith("/"))
    throw new Error(`not a part's path: ${path}`);
  const encode =
    encoding === "zstd" ? `zstd -q -c -${whole(level, 1, 19)} -T${whole(threads, 0, 256)}` : "cat";
  return `umask 077
LC_ALL=C; export LC_ALL
part=${quote(path)}
t="$part.tmp.$$"
machine=$(uname -n):$(cat /etc/machine-id 2>/dev/null)
start=$(sed 's/.*) //' "/proc/$$/stat" | cut -d ' ' -f 20)
boot=$(cat /proc/sys/kernel/random/boot_id)
clean() { rm -f "$part.writer" "$t".*; }
publish() { printf '%s\\n' "$1" >"$t.result" && sync "$t.result" && mv -f "$t.result" "$part.result"; }
failed() {
  rm -f "$part"
  words=$(tr -c '[:alnum:] .,:;/()_+=-' ' ' 2>/dev/null <"$t.words" | tail -c 300)
  rm -f "$t".*
  publish "{\\"version\\":1,\\"ok\\":false,\\"stage\\":\\"$1\\",\\"status\\":$2,\\"words\\":\\"$words\\"}"
  echo "symvirt: writing $part failed in $1, status $2: $words" >&2
  clean
  exit 1
}
trap 'failed signal 143' HUP INT TERM
rm -f "$part.result"
printf '{"pid":%s,"startTime":"%s","bootId":"%s","machine":"%s"}\\n' "$$" "$start" "$boot" "$machine" >"$t.writer" &&
  mv -f "$t.writer" "$part.writer" || { : >"$t.words"; failed begin 1; }
statuses=$(
  {
    { dd bs=1048576 2>"$t.read"; echo "read $?" >&3; } |
      { ${encode} 2>"$t.compress"; echo "compress $?" >&3; } |
      { tee --output-error=exit "$part" 2>"$t.write"; echo "write $?" >&3; } |
      { sha256sum >"$t.sum" 2>"$t.hash"; echo "hash $?" >&3; }
  } 3>&1 >/dev/null
)
for stage in hash write compress read; do
  status=$(printf '%s\\n' "$statuses" | sed -n "s/^$stage //p")
  [ "$status" = 0 ] || { mv -f "$t.$stage" "$t.words"; failed "$stage" "\${status:-127}"; }
done
sync "$part" 2>"$t.words" || failed sync $?
raw=$(sed -n 's/^\\([0-9][0-9]*\\) bytes.*/\\1/p' "$t.read")
stored=$(wc -c <"$part" | tr -d ' ')
sum=$(cut -c 1-64 "$t.sum")
publish "{\\"version\\":1,\\"ok\\":true,\\"rawBytes\\":\${raw:-null},\\"storedBytes\\":$stored,\\"sha256\\":\\"$sum\\"}" 2>"$t.words" ||
  failed result 1
clean
`;
}

function whole(value: number, from: number, to: number): number {
  if (!Number.isInteger(value) || value < from || value > to)
    throw new Error(`${value} is not a whole number from ${from} to ${to}`);
  return value;
}
