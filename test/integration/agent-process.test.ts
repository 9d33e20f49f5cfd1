/** The agent as a process: its command line, signals and exit codes, and a character device for a port. */
import { type ChildProcess, spawn } from "node:child_process";
import {
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readSync,
  rmSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import koffi from "koffi";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { errorCode } from "../../src/agent/addon.js";
import { encodeLine, LineDecoder } from "../../src/protocol/framing.js";
import { type GuestMessage, guestMessage } from "../../src/protocol/messages.js";
import { FakeHost, FakeRank, until } from "./agent-fixtures.js";

const SYMVIRT = fileURLToPath(new URL("../../bin/symvirt", import.meta.url));

interface Running {
  child: ChildProcess;
  stderr: () => string;
  ended: Promise<number | null>;
}

let folder: string;
let socket: string;
let started: Running[];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "symvirt-agent-"));
  socket = join(folder, "run/ranks.sock");
  started = [];
});
afterEach(async () => {
  for (const { child, ended } of started) {
    if (child.exitCode === null) child.kill("SIGKILL");
    await ended;
  }
  rmSync(folder, { recursive: true, force: true });
});

function agent(port: string, ...more: string[]): Running {
  const args = [
    SYMVIRT,
    "agent",
    "--port",
    port,
    "--socket",
    socket,
    "--hooks",
    join(folder, "hooks.d"),
    ...more,
  ];
  const child = spawn(process.execPath, args, { stdio: ["ignore", "ignore", "pipe"] });
  let text = "";
  child.stderr.on("data", (chunk: Buffer) => {
    text += chunk.toString("utf8");
  });
  const ended = new Promise<number | null>((resolve) => child.once("close", (code) => resolve(code)));
  const running = { child, stderr: () => text, ended };
  started.push(running);
  return running;
}

const serving = (running: Running) =>
  until("the agent", () => running.stderr().includes("agent serves"), 20_000);

describe("symvirt agent", () => {
  it.each(["SIGTERM", "SIGINT"] as const)(
    "ends cleanly on %s, removes its socket, logs JSON lines",
    async (signal) => {
      const running = agent(`unix:${join(folder, "host")}`);
      await serving(running);
      const rank = await FakeRank.join(socket);
      running.child.kill(signal);
      expect(await running.ended).toBe(0);
      expect(existsSync(socket)).toBe(false);
      await until("the rank's end", () => rank.closed);
      for (const line of running.stderr().trim().split("\n"))
        expect(() => JSON.parse(line) as unknown).not.toThrow();
    },
  );

  it("refuses a socket that is served with exit 3, and takes over one left by a killed agent", async () => {
    const first = agent(`unix:${join(folder, "host")}`);
    await serving(first);
    const second = agent(`unix:${join(folder, "host")}`);
    expect(await second.ended).toBe(3);
    expect(second.stderr()).toContain("Another agent serves the rank socket");
    (await FakeRank.join(socket)).close();
    first.child.kill("SIGKILL");
    await first.ended;
    expect(existsSync(socket)).toBe(true);
    await serving(agent(`unix:${join(folder, "host")}`));
    (await FakeRank.join(socket)).close();
  });

  it.each([
    ["a regular file for a port", () => writeFileSync(join(folder, "port"), ""), "ENOTTY"],
    ["a folder for a port", () => undefined, "EISDIR"],
  ])("refuses %s with exit 3", async (_, prepare, code) => {
    prepare();
    const running = agent(code === "EISDIR" ? folder : join(folder, "port"));
    expect(await running.ended).toBe(3);
    expect(running.stderr()).toContain(code);
  });

  it("knows its options: exit 2 for others", async () => {
    expect(await agent("x", "--nonsense").ended).toBe(2);
    expect(await agent("x", "--log-level", "loud").ended).toBe(2);
  });

  it("waits for a port that is not there yet", async () => {
    const running = agent(join(folder, "later"));
    await until("its complaint", () => running.stderr().includes("not there yet"), 20_000);
    (await FakeRank.join(socket)).close();
  });

  it("listens for the host on unix-listen:, one at a time", async () => {
    const path = join(folder, "port");
    const running = agent(`unix-listen:${path}`);
    await serving(running);
    await until("the port", () => existsSync(path));
    const { connect } = await import("node:net");
    for (let i = 0; i < 2; i++) {
      const host = connect(path);
      const lines: string[] = [];
      const decoder = new LineDecoder();
      host.on("data", (chunk) => lines.push(...decoder.push(chunk)));
      await until("the announcement", () => lines.length > 0);
      host.destroy();
      await new Promise((resolve) => host.once("close", resolve));
    }
  });

  it("takes the same ranks up again after it was killed in the middle of a cycle", async () => {
    const host = await FakeHost.listen(join(folder, "host"));
    try {
      const first = agent(`unix:${join(folder, "host")}`);
      await host.hello("aaaaaaaaaaaaaaaa");
      const rank = await FakeRank.join(socket);
      const want = {
        type: "want",
        job: "job1",
        cycle: 1,
        step: 1,
        phase: "park",
        quietComplete: false,
      } as const;
      host.send({ ...want, session: "aaaaaaaaaaaaaaaa" });
      await until("the want", () => rank.of(17)[0]);
      first.child.kill("SIGKILL");
      await first.ended;
      await until("the rank's end", () => rank.closed);
      host.clear();
      agent(`unix:${join(folder, "host")}`);
      await host.hello("bbbbbbbbbbbbbbbb");
      const again = await FakeRank.join(socket);
      host.send({ ...want, session: "bbbbbbbbbbbbbbbb" });
      await until("the want again", () => again.of(17)[0]);
      again.close();
    } finally {
      await host.close();
    }
  });
});

describe("a character device for a port", () => {
  it("carries both directions, takes a host end that is away calmly, and goes on when it is back", async () => {
    let pty = openPty();
    const running = agent(pty.slave);
    try {
      const lines = reader(pty);
      await until("the announcement", () => lines().some((l) => l.type === "hello"), 20_000);
      pty.write(encodeLine({ type: "hello", v: 1, session: "cccccccccccccccc" }));
      await until("the state", () => lines().some((l) => l.type === "state"));
    } finally {
      pty.close();
    }
    await until("the agent to see it", () => /port failed|is away/.test(running.stderr()));
    const before = cpuTicks(running.child.pid ?? 0);
    await new Promise((resolve) => setTimeout(resolve, 1000));
    // 100 ticks a second: a spinning agent would have used about 100.
    expect(cpuTicks(running.child.pid ?? 0) - before).toBeLessThan(30);
    // The kernel gives the lowest free number again, which is the one just closed.
    const path = pty.slave;
    pty = openPty();
    try {
      if (pty.slave !== path) return;
      const lines = reader(pty);
      await until("the announcement to the new host", () => lines().some((l) => l.type === "hello"));
    } finally {
      pty.close();
    }
  });
});

interface Pty {
  slave: string;
  read(): Buffer | null;
  write(bytes: Buffer): void;
  close(): void;
}

/** A raw pseudo-terminal; its master is the "host". */
function openPty(): Pty {
  const libc = koffi.load("libc.so.6");
  const fd = openSync("/dev/ptmx", 0x2 | 0x100 | 0x800); // O_RDWR | O_NOCTTY | O_NONBLOCK
  (libc.func("int unlockpt(int)") as (fd: number) => number)(fd);
  const slave = (libc.func("const char *ptsname(int)") as (fd: number) => string)(fd);
  const termios = Buffer.alloc(64);
  (libc.func("int tcgetattr(int, void *)") as (fd: number, t: Buffer) => number)(fd, termios);
  (libc.func("void cfmakeraw(void *)") as (t: Buffer) => void)(termios);
  (libc.func("int tcsetattr(int, int, void *)") as (fd: number, a: number, t: Buffer) => number)(
    fd,
    0,
    termios,
  );
  const buffer = Buffer.alloc(65_536);
  return {
    slave,
    read() {
      try {
        const n = readSync(fd, buffer);
        return n === 0 ? null : Buffer.from(buffer.subarray(0, n));
      } catch (error) {
        if (errorCode(error) === "EAGAIN" || errorCode(error) === "EIO") return null;
        throw error;
      }
    },
    write: (bytes) => void writeSync(fd, bytes),
    close: () => closeSync(fd),
  };
}

function reader(pty: Pty): () => GuestMessage[] {
  const decoder = new LineDecoder();
  const all: GuestMessage[] = [];
  return () => {
    for (let chunk = pty.read(); chunk !== null; chunk = pty.read())
      for (const line of decoder.push(chunk)) all.push(guestMessage.parse(JSON.parse(line)));
    return all;
  };
}

function cpuTicks(pid: number): number {
  const stat = readFile(`/proc/${pid}/stat`);
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return Number(fields[11]) + Number(fields[12]);
}

function readFile(path: string): string {
  const fd = openSync(path, "r");
  try {
    const buffer = Buffer.alloc(4096);
    return buffer.toString("latin1", 0, readSync(fd, buffer));
  } finally {
    closeSync(fd);
  }
}
