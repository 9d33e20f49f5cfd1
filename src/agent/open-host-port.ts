/** Which kind of port a `--port` argument means. */
import type { Logger } from "pino";
import type { Addon } from "./addon.js";
import type { HostPort, HostPortEvents } from "./host-port.js";
import { UnixPort } from "./unix-port.js";
import { VirtioPort } from "./virtio-port.js";

/** Opens the port named on the command line and keeps it open until `close`. */
export function openHostPort(spec: string, addon: Addon, log: Logger, events: HostPortEvents): HostPort {
  if (spec.startsWith("unix:")) return new UnixPort(spec.slice("unix:".length), "connect", log, events);
  if (spec.startsWith("unix-listen:"))
    return new UnixPort(spec.slice("unix-listen:".length), "listen", log, events);
  return new VirtioPort(spec, addon, log, events);
}
