#!/usr/bin/env bash
# Static checks: types, format and lint of TypeScript, static analysis of C, no import cycles,
# dependencies between folders pointing one way only.
set -uo pipefail
cd "$(dirname "$0")/.."

passed=0 failed=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT

check() {
  local name=$1
  shift
  if "$@" >"$log" 2>&1; then
    passed=$((passed + 1))
    echo "lint: $name: ok"
  else
    failed=$((failed + 1))
    cat "$log"
    echo "lint: $name: FAILED"
  fi
}

check "types" npx --no-install tsc --noEmit -p tsconfig.json
check "format (prettier)" npx --no-install prettier --check --log-level warn .
check "typed lint (eslint)" npx --no-install eslint src test --max-warnings 0
check "folder dependencies" node scripts/check-imports.js
check "C static analysis (cppcheck)" cppcheck --quiet --error-exitcode=1 --std=c11 --enable=warning,portability \
  --inline-suppr --suppress=missingIncludeSystem --suppress=nullPointerOutOfMemory --suppress=ctunullpointerOutOfMemory \
  -D_GNU_SOURCE '-DSV_VERSION="x"' -I native/include -I native/preload/src native/preload/src

echo "lint: $passed passed, $failed failed"
((failed == 0))
