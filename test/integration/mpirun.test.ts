import { execFile, spawn } from "node:child_process";
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { until } from "./agent-fixtures.js";

const SYMVIRT = fileURLToPath(new URL("../../bin/symvirt", import.meta.url));
const realMpirun = (process.env.PATH ?? "")
  .split(delimiter)
  .some((folder) => existsSync(join(folder, "mpirun")));

let folder: string;
let library: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "symvirt-mpirun-"));
  library = join(folder, "libsymvirt.so");
  // Enough for the wrapper, which only looks whether it is there.
  writeFileSync(library, "");
  script(join(folder, "mpirun"), `printf '%s\\n' "$@" > "$RECORD"; exec sh -c "$THEN"`);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function script(path: string, body: string): void {
  writeFileSync(path, `#!/bin/sh\n${body}\n`);
  chmodSync(path, 0o755);
}

interface Result {
  code: number | null;
  stdout: string;
  stderr: string;
}

function environment(extra: Record<string, string | undefined>): NodeJS.ProcessEnv {
  const env: NodeJS.ProcessEnv = {
    SYMVIRT_LIBRARY: library,
    SYMVIRT_ROCE: "off",
    RECORD: join(folder, "argv"),
    THEN: "exit 0",
  };
  for (const [name, value] of Object.entries(process.env))
    if (!name.startsWith("OMPI_") && !name.startsWith("SYMVIRT_") && name !== "LD_PRELOAD") env[name] = value;
  env.PATH = `${folder}${delimiter}${process.env.PATH ?? ""}`;
  return { ...env, ...extra };
}

function symvirt(args: string[], extra: Record<string, string | undefined> = {}): Promise<Result> {
  return new Promise((resolve) => {
    const child = execFile(
      process.execPath,
      [SYMVIRT, "mpirun", ...args],
      { env: environment(extra) },
      (_, stdout, stderr) => resolve({ code: child.exitCode, stdout, stderr }),
    );
  });
}

const recorded = () => readFileSync(join(folder, "argv"), "utf8").trimEnd().split("\n");

describe("symvirt mpirun with a recorded mpirun", () => {
  it("hands every word on, ours right before the program", async () => {
    const args = [
      "-np",
      "4",
      "--host",
      "a:2,b:2",
      "-x",
      "FOO=b ar",
      "./a.out",
      "--job",
      "inner",
      "-v",
      "--help",
      "--",
      "x",
    ];
    expect((await symvirt(args)).code).toBe(0);
    const words = recorded();
    expect(words.slice(0, 6)).toEqual(args.slice(0, 6));
    expect(words.slice(-7)).toEqual(args.slice(-7));
    expect(words).toContain(`LD_PRELOAD=${library}`);
    expect(words.find((w) => w.startsWith("SYMVIRT_JOB="))).toMatch(/^SYMVIRT_JOB=[0-9a-f]{32}$/);
    expect(words).not.toContain("btl_openib_gid_index");
  });

  it("gives each job another id", async () => {
    const ids = new Set<string | undefined>();
    for (let i = 0; i < 2; i++) {
      await symvirt(["a"]);
      ids.add(recorded().find((w) => w.startsWith("SYMVIRT_JOB=")));
    }
    expect(ids.size).toBe(2);
  });

  it("returns the exit code, and 128 + the signal", async () => {
    expect((await symvirt(["a"], { THEN: "exit 7" })).code).toBe(7);
    expect((await symvirt(["a"], { THEN: "kill -SEGV $$" })).code).toBe(139);
  });

  it.each(["SIGTERM", "SIGINT", "SIGUSR1"] as const)("hands %s on", async (signal) => {
    const ready = join(folder, `ready-${signal}`);
    const child = spawn(process.execPath, [SYMVIRT, "mpirun", "a"], {
      env: environment({
        THEN: `trap 'exit 42' ${signal.slice(3)}; : > ${ready}; while :; do sleep 0.05; done`,
      }),
      stdio: "ignore",
      detached: true,
    });
    try {
      await until("the script", () => existsSync(ready), 15_000);
      const ended = new Promise<number | null>((resolve) => child.once("exit", resolve));
      child.kill(signal);
      expect(await ended).toBe(42);
    } finally {
      if (child.pid !== undefined && child.exitCode === null) process.kill(-child.pid, "SIGKILL");
    }
  });

  it("--print-cmd prints one quoted line and runs nothing", async () => {
    rmSync(join(folder, "argv"), { force: true });
    const { code, stdout, stderr } = await symvirt(["--print-cmd", "-np", "2", "./a b", "it's"], {
      SYMVIRT_JOB: "me",
    });
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(stdout).toBe(
      `${join(folder, "mpirun")} -np 2 --mca pml ob1 --mca btl openib,tcp,self,vader --mca btl_openib_allow_ib 1 ` +
        "--mca btl_openib_warn_default_gid_prefix 0 --mca btl_openib_warn_no_device_params_found 0 " +
        `-x LD_PRELOAD=${library} -x SYMVIRT_JOB=me -x SYMVIRT_LIBRARY -x SYMVIRT_ROCE './a b' 'it'\\''s'\n`,
    );
    expect(existsSync(join(folder, "argv"))).toBe(false);
  });

  it("takes --print-cmd of the program for the program's", async () => {
    expect((await symvirt(["a", "--print-cmd"])).stdout).toBe("");
    expect(recorded().at(-1)).toBe("--print-cmd");
  });

  it("respects parameters of a --tune file", async () => {
    writeFileSync(join(folder, "tune"), "-mca pml ucx\n");
    await symvirt(["--tune", join(folder, "tune"), "a"]);
    expect(recorded()).not.toContain("ob1");
  });

  it("has its own exit codes: 125 for itself, 127 without mpirun", async () => {
    const missing = await symvirt(["a"], { SYMVIRT_LIBRARY: "/nowhere/lib.so" });
    expect(missing.code).toBe(125);
    expect(missing.stderr).toContain('"/nowhere/lib.so"');
    expect((await symvirt(["--print-cmd=yes", "a"])).code).toBe(125);
    expect((await symvirt(["a"], { SYMVIRT_JOB: "a b" })).code).toBe(125);
    expect((await symvirt(["--no-preload", "a"], { SYMVIRT_LIBRARY: "/nowhere/lib.so" })).code).toBe(0);
    expect(recorded().some((w) => w.startsWith("LD_PRELOAD"))).toBe(false);
    expect((await symvirt(["a"], { PATH: "/nonexistent" })).code).toBe(127);
  });

  it("warns on stderr of a PML that cannot migrate", async () => {
    const { code, stderr } = await symvirt(["--mca", "pml", "ucx", "a"]);
    expect(code).toBe(0);
    expect(stderr).toMatch(/^symvirt: warning: pml "ucx"/);
    expect(recorded()).not.toContain("ob1");
  });
});

describe.skipIf(!realMpirun)("symvirt mpirun with the mpirun of this machine", () => {
  const real = { PATH: process.env.PATH, OMPI_ALLOW_RUN_AS_ROOT: undefined };
  const common = ["--no-preload", "--allow-run-as-root", "--oversubscribe", "-np", "1"];

  it("passes the exit code 7 through", async () => {
    expect((await symvirt([...common, "sh", "-c", "exit 7"], real)).code).toBe(7);
  });

  it("passes the end by a signal through as mpirun has it", async () => {
    expect((await symvirt([...common, "sh", "-c", "kill -KILL $$"], real)).code).toBe(137);
  });

  it("exports to every context", async () => {
    const args = [
      "--allow-run-as-root",
      "--oversubscribe",
      "-np",
      "1",
      "sh",
      "-c",
      "echo $SYMVIRT_JOB",
      ":",
      "-np",
      "1",
      "sh",
      "-c",
      "echo $SYMVIRT_JOB",
    ];
    const { stdout } = await symvirt(args, { ...real, SYMVIRT_JOB: "both" });
    expect(stdout.trim().split("\n")).toEqual(["both", "both"]);
  });
});
