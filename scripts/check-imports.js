// Holds the dependency rules of docs/architecture.md against the imports of src/: which folder may
// import which, and no import cycle among files.
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";

const root = resolve(import.meta.dirname, "..", "src");
const allowed = {
  protocol: [],
  vmm: ["controller/cluster-file.ts", "controller/cluster-schema.ts"],
  checkpoint: [
    "controller/cluster-file.ts",
    "controller/cluster-schema.ts",
    "controller/plain-text.ts",
    "controller/state/process-identity.ts",
    "vmm/qemu/run-on-host.ts",
  ],
  controller: ["protocol", "vmm", "checkpoint"],
  agent: ["protocol"],
  mpirun: ["agent/devices.ts"],
  timeline: ["protocol", "controller"],
  lab: ["vmm", "controller", "protocol"],
  demo: ["lab", "controller", "protocol", "timeline", "vmm", "index.ts"],
  testbed: [
    ...["lab", "demo/job-command.ts", "demo/job-log.ts", "controller", "protocol", "index.ts"],
    "vmm/qemu/run-on-host.ts",
  ],
  soak: ["testbed", "lab", "index.ts"],
  eval: [
    ...["testbed", "lab", "timeline", "controller", "index.ts"],
    ...[
      "bench/machine.ts",
      "bench/results.ts",
      "demo/job-command.ts",
      "demo/job-log.ts",
      "demo/job-clock.ts",
    ],
    ...["demo/recorder.ts", "demo/tables.ts"],
  ],
  bench: ["lab", "demo", "controller", "protocol", "vmm", "checkpoint", "testbed", "index.ts"],
  policy: [],
  serve: ["policy", "checkpoint", "controller", "protocol"],
  cli: [
    "agent",
    "mpirun",
    "controller",
    "checkpoint",
    "serve",
    "lab",
    "demo",
    "protocol",
    "vmm",
    "timeline",
    "index.ts",
  ],
  "index.ts": ["controller", "checkpoint", "protocol", "vmm"],
};

const files = readdirSync(root, { recursive: true })
  .filter((f) => f.endsWith(".ts") && !f.endsWith(".test.ts"))
  .map((f) => f.toString());
const imports = new Map();
const problems = [];

for (const file of files) {
  const text = readFileSync(join(root, file), "utf8");
  const list = [];
  for (const match of text.matchAll(/^(?:import|export)\s(type\s)?[^;]*?from\s+"(\.[^"]+)"/gm)) {
    const target = relative(root, resolve(root, dirname(file), match[2])).replace(/\.js$/, ".ts");
    if (match[1] === undefined) list.push(target);
    const from = file.split("/")[0];
    const to = target.split("/")[0];
    if (from === to || ["errors.ts", "signals.ts", "version.ts"].includes(target)) continue;
    const rules = allowed[from];
    if (rules === undefined) problems.push(`${file}: no rule for the folder ${from}`);
    else if (!rules.includes(to) && !rules.includes(target)) problems.push(`${file} imports ${target}`);
  }
  imports.set(file, list);
}

const done = new Set();
const path = [];
function visit(file) {
  if (done.has(file)) return;
  const at = path.indexOf(file);
  if (at >= 0) {
    problems.push(`import cycle: ${[...path.slice(at), file].join(" -> ")}`);
    return;
  }
  path.push(file);
  for (const next of imports.get(file) ?? []) visit(next);
  path.pop();
  done.add(file);
}
for (const file of files) visit(file);

for (const problem of problems) console.error(problem);
process.exit(problems.length === 0 ? 0 : 1);
