/** What a host needs to write and read the parts of a checkpoint (part-write.ts, part-read.ts). */
import type { Findings } from "../findings.js";

/** Shell lines for a host: one "lacks TOOL" for each that is not there. */
export const toolsScript =
  'for tool in zstd sha256sum setsid tee; do command -v $tool >/dev/null || echo "lacks $tool"; done\n';

/** Two VMs of a host find the same. */
export function refuseTool(findings: Findings, host: string, line: string): void {
  const text = `${host} has no ${line.slice("lacks ".length)}, which checkpoints are written and read with`;
  if (!findings.list.some((finding) => finding.text === text))
    findings.refuse(text, "install it there (Debian: zstd, coreutils, util-linux)");
}
