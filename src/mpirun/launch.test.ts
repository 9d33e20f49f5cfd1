import { expect, it } from "vitest";
import { launch } from "./launch.js";

const shell = (script: string) => launch("/bin/sh", ["-c", script]);

it("has mpirun's exit code, or that of the signal that ended it", async () => {
  expect(await shell("exit 3")).toBe(3);
  expect(await shell("kill -KILL $$")).toBe(137);
});

it("does not let SIGPIPE end an mpirun that is ending anyway", async () => {
  expect(await shell("kill -PIPE $$; exit 0")).toBe(0);
});

it("gives it its arguments as they are", async () => {
  const words = ["-c", `[ "$1" = "a b" ] && [ "$2" = "c'd" ] && [ $# = 2 ]`, "sh", "a b", "c'd"];
  expect(await launch("/bin/sh", words)).toBe(0);
});
