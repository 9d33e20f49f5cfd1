export interface Uevent {
  action: string;
  devpath: string;
  subsystem: string;
}

/** Parses one kernel uevent ("add@/devices/…", then NUL-separated KEY=value); undefined if it is not one. */
export function parseUevent(raw: Buffer): Uevent | undefined {
  const [head, ...pairs] = raw.toString("latin1").split("\0");
  const at = head?.indexOf("@") ?? -1;
  if (head === undefined || at <= 0) return undefined;
  const subsystem = pairs.find((pair) => pair.startsWith("SUBSYSTEM="))?.slice("SUBSYSTEM=".length) ?? "";
  return { action: head.slice(0, at), devpath: head.slice(at + 1), subsystem };
}
