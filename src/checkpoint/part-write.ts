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
 * The stages tell their statuses and words on descriptor 3, as sh has only the status of the last one of a pipe; no
 * file is used for it, as the disk may be full. dd is there for its count of bytes. A stage that fails ends those
 * before it by a closed pipe, so the last that failed is the cause.
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
plain() { printf '%s' "$1" | tr -c '[:alnum:] .,:;/()_+=-' ' ' | tail -c 300; }
tell() { printf '%s %s %s\\n' "$1" "$2" "$(plain "$3")" >&3; }
publish() { printf '%s\\n' "$1" >"$t" && sync "$t" && mv -f "$t" "$part.$2"; }
failed() {
  rm -f "$part" "$t"
  words=$(plain "$3")
  publish "{\\"version\\":1,\\"ok\\":false,\\"stage\\":\\"$1\\",\\"status\\":$2,\\"words\\":\\"$words\\"}" result
  rm -f "$part.writer" "$t"
  echo "symvirt: writing $part failed in $1, status $2: $words" >&2
  exit 1
}
trap 'failed signal 143 ""' HUP INT TERM
rm -f "$part.result"
start=$(sed 's/.*) //' "/proc/$$/stat" | cut -d ' ' -f 20)
boot=$(cat /proc/sys/kernel/random/boot_id)
machine=$(plain "$(uname -n):$(cat /etc/machine-id 2>/dev/null)")
words=$(publish "{\\"pid\\":$$,\\"startTime\\":\\"$start\\",\\"bootId\\":\\"$boot\\",\\"machine\\":\\"$machine\\"}" writer 2>&1) ||
  failed begin 1 "$words"
told=$(
  {
    { exec 4>&1; words=$(dd bs=1048576 2>&1 >&4); tell read $? "$words"; } |
      { exec 4>&1; words=$(${encode} 2>&1 >&4); tell compress $? "$words"; } |
      { exec 4>&1; words=$(tee --output-error=exit "$part" 2>&1 >&4); tell write $? "$words"; } |
      { words=$(sha256sum 2>&1); tell hash $? "$words"; }
  } 3>&1 >/dev/null
)
for stage in hash write compress read; do
  line=$(printf '%s\\n' "$told" | sed -n "s/^$stage //p")
  [ "\${line%% *}" = 0 ] || { status=\${line%% *}; failed "$stage" "\${status:-127}" "\${line#* }"; }
done
words=$(sync "$part" 2>&1) || failed sync $? "$words"
raw=$(printf '%s\\n' "$told" | sed -n 's/^read 0 .* \\([0-9][0-9]*\\) bytes\\{0,1\\} .*/\\1/p')
sum=$(printf '%s\\n' "$told" | sed -n 's/^hash 0 \\([0-9a-f]\\{64\\}\\).*/\\1/p')
stored=$(wc -c <"$part" | tr -d ' ')
words=$(publish "{\\"version\\":1,\\"ok\\":true,\\"rawBytes\\":\${raw:-null},\\"storedBytes\\":$stored,\\"sha256\\":\\"$sum\\"}" result 2>&1) ||
  failed result 1 "$words"
rm -f "$part.writer"
`;
}

function whole(value: number, from: number, to: number): number {
  if (!Number.isInteger(value) || value < from || value > to)
    throw new Error(`${value} is not a whole number from ${from} to ${to}`);
  return value;
}
