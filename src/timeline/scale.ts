/** From times to pixels, and numbers to words. */
export interface Scale {
  fromMs: number;
  toMs: number;
  /** x of a time, kept inside the drawing. */
  x(ms: number): number;
}

/** A linear scale of [fromMs, toMs] onto [left, right]; an empty range becomes one millisecond long. */
export function linearScale(fromMs: number, toMs: number, left: number, right: number): Scale {
  const end = toMs > fromMs ? toMs : fromMs + 1;
  return {
    fromMs,
    toMs: end,
    x: (ms) => {
      const part = (Math.min(Math.max(ms, fromMs), end) - fromMs) / (end - fromMs);
      return Math.round((left + part * (right - left)) * 100) / 100;
    },
  };
}

/** Round times inside [fromMs, toMs], at most about `count`, always with the steps 1, 2, 5 times a power of ten. */
export function ticks(fromMs: number, toMs: number, count: number): number[] {
  const rough = Math.max(toMs - fromMs, 1) / Math.max(count, 1);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = ([1, 2, 5, 10].find((n) => n * power >= rough) ?? 10) * power;
  const first = Math.ceil(fromMs / step);
  const last = Math.floor(toMs / step);
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, i) => (first + i) * step);
}

/** A duration for people: "430 µs", "12 ms", "1.24 s", "2 min 5 s". */
export function formatMs(ms: number): string {
  if (ms < 0) return `-${formatMs(-ms)}`;
  if (ms === 0) return "0 ms";
  if (ms < 1) return `${Math.round(ms * 1000)} µs`;
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  if (ms < 999.5) return `${Math.round(ms)} ms`;
  if (ms < 10_000) return `${(ms / 1000).toFixed(2)} s`;
  if (ms < 120_000) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
}

/** Bytes for people: "0", "812 B", "13.1 kB", "304 MB" (powers of ten). */
export function formatBytes(bytes: number): string {
  if (bytes === 0) return "0";
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  const at = Math.min(Math.floor(Math.log10(Math.max(bytes, 1)) / 3), units.length - 1);
  const value = bytes / 1000 ** at;
  return `${at === 0 || value >= 99.95 ? Math.round(value) : value.toFixed(1)} ${units[at] ?? "B"}`;
}

/** 12345678 as "12,345,678". */
export function formatCount(n: number): string {
  return Math.round(n).toLocaleString("en-US");
}
