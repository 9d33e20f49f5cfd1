import { expect, it } from "vitest";
import { commandDifference } from "./command-match.js";

const template = [
  "qemu",
  "-name",
  "{vm}",
  "-m",
  "1024",
  "-pidfile",
  "{runtime}/{vm}.pid",
  "-qmp",
  "unix:{runtime}/{vm}.qmp",
];
const argv = (runtime: string, ...more: string[]) => [
  ...[
    "qemu",
    "-name",
    "vm1",
    "-m",
    "1024",
    "-pidfile",
    `${runtime}/vm1.pid`,
    "-qmp",
    `unix:${runtime}/vm1.qmp`,
  ],
  ...more,
];
const at = { vm: "vm1", host: "h1" };

it("a command is the same whatever folder its host had", () => {
  expect(commandDifference(template, argv("/run/a"), at)).toBeUndefined();
  expect(commandDifference(template, argv("/var/lib/other place"), at)).toBeUndefined();
});

it("the first word that differs is named, also a missing or an added one", () => {
  expect(commandDifference([...template, "-snapshot"], argv("/run/a"), at)).toEqual({
    was: "",
    is: "-snapshot",
  });
  expect(commandDifference(template, argv("/run/a", "-snapshot"), at)).toEqual({ was: "-snapshot", is: "" });
  const bigger = template.with(4, "2048");
  expect(commandDifference(bigger, argv("/run/a"), at)).toEqual({ was: "1024", is: "2048" });
  const two = argv("/run/a").with(8, "unix:/run/b/vm1.qmp");
  expect(commandDifference(template, two, at)).toEqual({
    was: "unix:/run/b/vm1.qmp",
    is: "unix:{runtime}/{vm}.qmp",
  });
});
