import { describe, expect, it } from "vitest";
import { clusterFile } from "./cluster-file.js";
import { limitsInForce, limitsInWords } from "./limits.js";

const cluster = (limits: object) =>
  clusterFile.parse({ version: 1, name: "c", state: "/tmp/c", hosts: {}, vms: {}, limits });

describe("limits in force", () => {
  it("are those of the cluster file", () => {
    expect(limitsInForce(cluster({}))).toEqual({ maxDowntimeMs: 300 });
    expect(limitsInForce(cluster({ bandwidth: "8M", maxDowntime: "1s", parkAfter: "5s" }))).toEqual({
      bandwidthBytesPerSecond: 8 * 2 ** 20,
      maxDowntimeMs: 1000,
      parkAfterMs: 5000,
    });
  });

  it("but the command's word wins, one by one", () => {
    const file = cluster({ bandwidth: "8M", maxDowntime: "1s", parkAfter: "5s" });
    expect(limitsInForce(file, { parkAfterMs: "never" })).toEqual({
      bandwidthBytesPerSecond: 8 * 2 ** 20,
      maxDowntimeMs: 1000,
      parkAfterMs: "never",
    });
    expect(limitsInForce(file, { bandwidthBytesPerSecond: 1, maxDowntimeMs: 2 })).toEqual({
      ...{ bandwidthBytesPerSecond: 1, maxDowntimeMs: 2, parkAfterMs: 5000 },
    });
  });

  it("are said in words, the hold only where ranks run", () => {
    const words = (limits: object, strategy: "live" | "park" = "live") =>
      limitsInWords(limitsInForce(cluster(limits)), strategy);
    expect(words({}, "park")).toBe("at most 128 MiB/s, a downtime of 300 ms");
    expect(words({})).toBe(
      "at most 128 MiB/s, a downtime of 300 ms, ranks are held if its memory changes faster than it is sent",
    );
    expect(words({ bandwidth: "1536k", parkAfter: "5s" })).toBe(
      "at most 1.5 MiB/s, a downtime of 300 ms, ranks are held after 5 s or if its memory changes faster than it is sent",
    );
    expect(words({ parkAfter: "never" })).toContain("ranks are never held for it");
  });
});
