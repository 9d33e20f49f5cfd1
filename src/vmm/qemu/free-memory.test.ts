import { describe, expect, it } from "vitest";
import { freeMemory, memoryOf } from "./free-memory.js";

const kernel = `MemTotal:       25165824 kB
MemFree:          524288 kB
MemAvailable:    1048576 kB
HugePages_Total:      16
HugePages_Free:        2
Hugepagesize:       2048 kB
`;

describe("free memory of a host", () => {
  it("is what is available and the free huge pages", () => {
    expect(memoryOf(kernel)).toBe((1048576 + 4096) * 1024);
    expect(memoryOf("MemAvailable: 7 kB\n")).toBe(7168);
    expect(memoryOf("sh: cat: not found")).toBeUndefined();
  });

  it("is read of this machine, and a host that runs nothing is named", async () => {
    const { signal } = new AbortController();
    expect(await freeMemory("h1", [], signal)).toBeGreaterThan(2 ** 20);
    await expect(freeMemory("h1", ["false"], signal)).rejects.toMatchObject({
      exit: "unreachable",
      message: expect.stringContaining("host h1 does not tell its memory"),
    });
  });
});
