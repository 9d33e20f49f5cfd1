import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { parametersIn, readCommandLine } from "./command-line.js";
import { type RewriteOptions, rewrite, shellQuote } from "./rewrite.js";

const LIB = "/opt/symvirt/build/preload/libsymvirt.so";
const base: RewriteOptions = { env: {}, library: LIB, job: "j0b", roce: false };
const line = (text: string) => text.split(" ").filter((w) => w !== "");
const run = (text: string, options: Partial<RewriteOptions> = {}) =>
  rewrite(line(text), { ...base, ...options });
const MCA =
  "--mca pml ob1 --mca btl openib,tcp,self,vader --mca btl_openib_allow_ib 1 " +
  "--mca btl_openib_warn_default_gid_prefix 0 --mca btl_openib_warn_no_device_params_found 0";
const X = `-x LD_PRELOAD=${LIB} -x SYMVIRT_JOB=j0b`;

describe("rewrite", () => {
  it.each<[string, string]>([
    ["./a.out", `${MCA} ${X} ./a.out`],
    ["-np 4 ./a.out -np 9", `-np 4 ${MCA} ${X} ./a.out -np 9`],
    ["--np 4 --host n1,n2 ./a.out", `--np 4 --host n1,n2 ${MCA} ${X} ./a.out`],
    ["-x FOO -H n1 prog --mca pml ucx", `-x FOO -H n1 ${MCA} ${X} prog --mca pml ucx`],
    ["-np 2 -- ./a.out -x", `-np 2 ${MCA} ${X} -- ./a.out -x`],
    ["-np 1 a : -np 2 b c", `-np 1 ${MCA} ${X} a : -np 2 ${X} b c`],
    ["--app file", `--app file ${MCA} ${X}`],
    ["--oversubscribe --bind-to none -q a", `--oversubscribe --bind-to none -q ${MCA} ${X} a`],
    [
      "--allow-run-as-root --map-by ppr:2:node --rank-by core a b",
      `--allow-run-as-root --map-by ppr:2:node --rank-by core ${MCA} ${X} a b`,
    ],
    ["--timeout 5 --output-filename out a", `--timeout 5 --output-filename out ${MCA} ${X} a`],
    ["-wdir /tmp -tune f a", `-wdir /tmp -tune f ${MCA} ${X} a`],
  ])("%s", (before, after) => {
    expect(run(before).words).toEqual(line(after));
  });

  it.each(["--version", "-V", "--help", "-h", "--help all", ""])("leaves alone: mpirun %s", (text) => {
    expect(run(text)).toEqual({ words: line(text), warnings: [] });
  });

  it("sets no MCA parameter the user has set, however he did", () => {
    const has = (words: string[], name: string) => words.filter((w) => w === name).length;
    expect(has(run("--mca btl self,tcp,openib a").words, "btl")).toBe(1);
    expect(has(run("-mca btl_openib_allow_ib 0 a").words, "btl_openib_allow_ib")).toBe(1);
    expect(has(run("--gmca pml ob1 a").words, "pml")).toBe(1);
    expect(has(run("a : -mca pml ob1 b").words, "pml")).toBe(1);
    expect(has(run("a", { env: { OMPI_MCA_btl: "openib,self" } }).words, "btl")).toBe(0);
    const { words, warnings } = run("a", { setInFiles: new Map([["pml", "ucx"]]) });
    expect(has(words, "pml")).toBe(0);
    expect(warnings).toEqual([expect.stringContaining('pml "ucx" is not ob1')]);
    // In the program's own words it means nothing.
    expect(has(run("a --mca pml ucx").words, "pml")).toBe(2);
  });

  it("warns of what makes the job unmigratable, and respects it", () => {
    expect(run("--mca pml ucx a").warnings).toEqual([expect.stringContaining("not ob1")]);
    expect(run("--app file").warnings).toEqual([expect.stringContaining("they run without symvirt")]);
    expect(run("--mca pml ^ucx a").warnings).toEqual([]);
    expect(run("--mca pml ^ob1 a").warnings).toHaveLength(1);
    expect(run("a", { env: { OMPI_MCA_pml: "cm" } }).warnings).toHaveLength(1);
    expect(run("--mca btl tcp,self a").warnings).toEqual([expect.stringContaining("openib")]);
    expect(run("--mca btl ^openib a").warnings).toHaveLength(1);
    expect(run("--mca btl openib,self a").warnings).toEqual([expect.stringContaining("tcp")]);
    expect(run("--mca btl ^vader a").warnings).toEqual([]);
    expect(run("--mca pml ucx a", { library: undefined }).warnings).toEqual([]);
  });

  it("prepends the library to an LD_PRELOAD of the environment or of -x, and comes after the latter", () => {
    expect(run("a", { env: { LD_PRELOAD: "/e.so" } }).words).toContain(`LD_PRELOAD=${LIB}:/e.so`);
    const { words } = run("-x LD_PRELOAD=/u.so:/v.so a", { env: { LD_PRELOAD: "/e.so" } });
    expect(words.indexOf(`LD_PRELOAD=${LIB}:/u.so:/v.so`)).toBeGreaterThan(
      words.indexOf("LD_PRELOAD=/u.so:/v.so"),
    );
    expect(run("-x LD_PRELOAD a", { env: { LD_PRELOAD: "/e.so" } }).words).toContain(
      `LD_PRELOAD=${LIB}:/e.so`,
    );
  });

  it("hands on other SYMVIRT_ variables by name, once", () => {
    const env = { SYMVIRT_LOG: "info", SYMVIRT_JOB: "x", SYMVIRT_A: "1", OTHER: "1" };
    expect(run("-x SYMVIRT_A=2 a", { env }).words.slice(-5)).toEqual([
      "-x",
      "SYMVIRT_JOB=j0b",
      "-x",
      "SYMVIRT_LOG",
      "a",
    ]);
    expect(run("-x SYMVIRT_JOB=mine a").words.filter((w) => w.startsWith("SYMVIRT_JOB"))).toEqual([
      "SYMVIRT_JOB=mine",
    ]);
  });

  it("adds the GID index only for RoCE, and no variables without the library", () => {
    expect(run("a").words).not.toContain("btl_openib_gid_index");
    expect(run("a", { roce: true }).words.join(" ")).toContain("--mca btl_openib_gid_index 1");
    expect(run("-np 2 a", { library: undefined, env: { SYMVIRT_LOG: "x" } }).words).toEqual(
      line(`-np 2 ${MCA} a`),
    );
  });

  it("keeps every word of the user in its order", () => {
    const word = fc.oneof(
      fc.constantFrom(
        "-np",
        "4",
        "--mca",
        "btl",
        "-x",
        "A=b",
        ":",
        "--",
        "a.out",
        "--app",
        "-q",
        "--tune",
        "",
        "-",
      ),
      fc.string(),
    );
    fc.assert(
      fc.property(fc.array(word), (words) => {
        const result = rewrite(words, base).words;
        let at = 0;
        for (const w of words) {
          at = result.indexOf(w, at) + 1;
          expect(at).toBeGreaterThan(0);
        }
      }),
    );
  });
});

describe("readCommandLine", () => {
  it("finds programs, exports and MCA settings of each context", () => {
    const command = readCommandLine(line("-np 1 -x A=b=c --mca m v a -x Z : --x B --am f,g b"));
    expect(command.contexts.map((c) => c.program)).toEqual([7, 15]);
    expect([...(command.contexts[0]?.exported ?? [])]).toEqual([["A", "b=c"]]);
    expect([...(command.contexts[1]?.exported ?? [])]).toEqual([["B", undefined]]);
    expect(command.mca).toEqual([{ name: "m", value: "v" }]);
    expect(command.parameterFiles).toEqual(["f", "g"]);
  });
});

describe("parametersIn", () => {
  it("reads both kinds of files", () => {
    expect([...parametersIn("# pml = x\npml = ob1 \n btl=self\n")]).toEqual([
      ["pml", "ob1"],
      ["btl", "self"],
    ]);
    expect([...parametersIn("-mca pml ob1 --mca btl tcp\n-x A=b\n#-mca c d")]).toEqual([
      ["pml", "ob1"],
      ["btl", "tcp"],
    ]);
  });
});

describe("shellQuote", () => {
  it("leaves plain words and quotes the rest", () => {
    expect(["a-b=c:/d", "", "a b", "it's", "$x"].map(shellQuote)).toEqual([
      "a-b=c:/d",
      "''",
      "'a b'",
      "'it'\\''s'",
      "'$x'",
    ]);
  });
});
