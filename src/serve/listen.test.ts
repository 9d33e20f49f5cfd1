import { describe, expect, it } from "vitest";
import { isLoopback, namesLoopback, parseListen } from "./listen.js";

describe("listen addresses", () => {
  it.each([
    ["unix:/run/symvirt/serve.sock", { path: "/run/symvirt/serve.sock" }, true],
    ["127.0.0.1:9720", { host: "127.0.0.1", port: 9720 }, true],
    ["localhost:0", { host: "127.0.0.1", port: 0 }, true],
    ["[::1]:9720", { host: "::1", port: 9720 }, true],
    ["0.0.0.0:9720", { host: "0.0.0.0", port: 9720 }, false],
    ["10.0.0.1:80", { host: "10.0.0.1", port: 80 }, false],
    ["[::]:80", { host: "::", port: 80 }, false],
  ])("%s", (text, address, loopback) => {
    expect(parseListen(text)).toEqual(address);
    expect(isLoopback(parseListen(text))).toBe(loopback);
  });

  it.each([
    "9720",
    "127.0.0.1",
    "127.0.0.1:99999",
    "example.org:80",
    "unix:relative",
    "1.2.3:4",
    `unix:/${"x".repeat(120)}`,
  ])("%s is refused", (text) => {
    expect(() => parseListen(text)).toThrow(expect.objectContaining({ exit: "usage" }));
  });

  it("knows which Host headers name this machine", () => {
    for (const name of ["localhost", "localhost:80", "127.0.0.1:9720", "[::1]:1"])
      expect(namesLoopback(name)).toBe(true);
    for (const name of [undefined, "", "localhost.evil.org", "127.0.0.1.evil.org", "evil:80"])
      expect(namesLoopback(name)).toBe(false);
  });
});
