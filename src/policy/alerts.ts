/** Alertmanager's webhook (version 4) as far as it is read: which alerts fire or are resolved, for which hosts. */
import { createHash } from "node:crypto";
import { z } from "zod";

const text = z.string().max(4096);
const labels = z.record(z.string().max(256), text);

/** Other keys are Alertmanager's business and may grow; those that are read must be right. */
export const webhook = z.object({
  version: z.literal("4"),
  status: z.enum(["firing", "resolved"]),
  alerts: z
    .array(
      z.object({
        status: z.enum(["firing", "resolved"]),
        labels,
        fingerprint: z.string().min(1).max(128).optional(),
      }),
    )
    .max(4096),
});
export type Webhook = z.infer<typeof webhook>;

export interface HostAlert {
  status: "firing" | "resolved";
  /** undefined: the alert has no such label. */
  host: string | undefined;
  /** The same for the same labels, whenever it is sent. */
  alert: string;
}

/** The alerts with the host each names under `label`. */
export function hostAlerts({ alerts }: Webhook, label: string): HostAlert[] {
  return alerts.map(({ status, labels, fingerprint }) => ({
    status,
    host: Object.hasOwn(labels, label) ? labels[label] : undefined,
    alert: fingerprint ?? fingerprintOf(labels),
  }));
}

/** Alertmanager before 0.20 sends no fingerprint. */
function fingerprintOf(labels: Readonly<Record<string, string>>): string {
  const sorted = Object.entries(labels).sort(([a], [b]) => (a < b ? -1 : 1));
  return createHash("sha256").update(JSON.stringify(sorted)).digest("hex").slice(0, 16);
}
