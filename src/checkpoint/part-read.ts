/** The command by which a host streams one part back: a POSIX sh script that writes the stream to standard output. Pure. */
import { quote } from "../vmm/qemu/run-on-host.js";
import type { Part } from "./manifest.js";

/** Held back until the hash of the whole file is known to be right. */
const TAIL_BYTES = 65_536;

/**
 * Decompresses `path` to stdout. The file's hash is taken on the way, and its last 64 KiB go out only when the hash is
 * right: a reader that needs the end of the stream (QEMU's device state comes last) cannot take a damaged one for
 * whole. Exit 0: all of it went out and is right; else 1 with the cause on stderr. Bytes may have gone out by then.
 */
export function partReadCommand(
  path: string,
  part: Pick<Part, "encoding" | "storedBytes" | "sha256">,
): string {
  // -p: should the decoder end early, the hash is still that of the whole file, and so tells whose fault it was.
  const head = Math.max(0, part.storedBytes - TAIL_BYTES);
  const decode = part.encoding === "zstd" ? "zstd -q -d -c" : "cat";
  return `LC_ALL=C; export LC_ALL
part=${quote(path)}
failed() { echo "symvirt: reading $part failed: $1" >&2; exit 1; }
[ -r "$part" ] || failed "it is not there, or not readable"
[ "$(wc -c <"$part" | tr -d ' ')" = ${part.storedBytes} ] || failed "it does not have the ${part.storedBytes} bytes that the manifest says"
exec 5>&1
statuses=$(
  {
    {
      exec 6>&1
      sum=$({ head -c ${head} "$part" | tee -p /proc/self/fd/6; tail -c +${head + 1} "$part"; } | sha256sum | cut -c 1-64)
      if [ "$sum" = ${part.sha256} ]; then tail -c +${head + 1} "$part"; echo "read $?" >&3; else echo "read damaged" >&3; fi
    } | { ${decode} >&5; echo "decode $?" >&3; }
  } 3>&1
)
case $statuses in
  *"read damaged"*) failed "its SHA-256 is not that of the manifest" ;;
esac
for stage in decode read; do
  status=$(printf '%s\\n' "$statuses" | sed -n "s/^$stage //p")
  [ "$status" = 0 ] || failed "$stage ended with status \${status:-127}"
done
`;
}
