import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { anySignal } from "./signals.js";

test("aborts with the reason of the first signal, also of one aborted before", async () => {
  const [a, b] = [new AbortController(), new AbortController()];
  const either = anySignal([a.signal, b.signal]);
  expect(either.aborted).toBe(false);
  b.abort("second");
  a.abort("first");
  expect(either.reason).toBe("second");
  expect(anySignal([new AbortController().signal, a.signal]).reason).toBe("first");
});

test("a deadline fires although nobody else holds it and the collector runs", () => {
  const source = fileURLToPath(new URL("../dist/signals.js", import.meta.url));
  const script = `
    const { anySignal } = await import(${JSON.stringify(source)});
    const wait = () => { const s = anySignal([new AbortController().signal, AbortSignal.timeout(200)]);
      return new Promise((resolve) => s.addEventListener("abort", () => resolve("fired"))); };
    const collect = setInterval(() => globalThis.gc(), 20);
    const late = new Promise((resolve) => setTimeout(() => resolve("never"), 5000).unref());
    console.log(await Promise.race([wait(), late]));
    clearInterval(collect);`;
  const said = execFileSync(process.execPath, ["--expose-gc", "--input-type=module", "-e", script], {
    encoding: "utf8",
  });
  expect(said.trim()).toBe("fired");
});
