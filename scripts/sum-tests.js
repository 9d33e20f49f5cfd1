// Adds up what the parts of scripts/test.sh left behind: vitest's JSON reports and lines of the
// form "name: N passed, N failed". Names every skipped and failed test. Exit 1 if anything failed.
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

const folder = process.argv[2];
let passed = 0;
let failed = 0;
let skipped = 0;

// vitest also fails of errors outside of all tests (a rejection nobody handled), which its report does not name.
let failedParts = [];
const named = new Set();

for (const file of readdirSync(folder).sort()) {
  const text = readFileSync(join(folder, file), "utf8");
  if (file === "vitest.failed") {
    failedParts = text.trim().split("\n");
  } else if (file.endsWith(".json")) {
    const before = failed;
    const report = JSON.parse(text);
    for (const suite of report.testResults) {
      // a file that fails outside its tests (a hook, an import) must count
      if (suite.status === "failed" && suite.assertionResults.every((t) => t.status !== "failed")) {
        failed++;
        console.log(`failed: ${suite.name}: ${suite.message.split("\n")[0]}`);
      }
      for (const test of suite.assertionResults) {
        if (test.status === "passed") passed++;
        else if (test.status === "failed") {
          failed++;
          console.log(`failed: ${test.fullName}`);
        } else {
          skipped++;
          console.log(`skipped: ${test.fullName}`);
        }
      }
    }
    if (failed > before) named.add(file.replace(/\.json$/, ""));
  } else {
    const lines = [...text.matchAll(/(\d+) passed, (\d+) failed(?:, (\d+) skipped)?/g)];
    const last = lines.at(-1);
    if (last === undefined) {
      failed++;
      console.log(`failed: ${file} has no result line`);
    } else {
      if (Number(last[2]) > 0) console.log(`failed: ${file.replace(/\.txt$/, "")}: ${last[2]} (named above)`);
      passed += Number(last[1]);
      failed += Number(last[2]);
      skipped += Number(last[3] ?? 0);
    }
  }
}

for (const part of failedParts) {
  if (named.has(part) || existsSync(join(folder, `${part}.txt`))) continue;
  failed++;
  console.log(`failed: ${part}: vitest ended with an error outside of its tests (named above)`);
}

if (passed === 0 && failed === 0) failed = 1;
console.log(
  skipped > 0
    ? `${passed} passed, ${failed} failed, ${skipped} skipped`
    : `${passed} passed, ${failed} failed`,
);
process.exit(failed === 0 ? 0 : 1);
