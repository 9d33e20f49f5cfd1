#!/usr/bin/env bash
# Builds and runs the C tests of libsymvirt.so, plain and with the address and undefined-behaviour
# sanitizers, and checks the model of the handover with spin. Ends with one line
# `native: N passed, N failed`; exit 1 if one failed or did not build.
set -euo pipefail
cd "$(dirname "$0")/.."

passed=0
failed=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# run_tests BUILD CMAKE_OPTION...
run_tests() {
  local build=$1 total bad
  shift
  if ! { cmake -S native/test -B "$build" "$@" && cmake --build "$build" --parallel 2; } >"$log" 2>&1; then
    cat "$log" >&2
    echo "native: $build does not build (its words are above)" >&2
    failed=$((failed + 1))
    return
  fi
  ctest --test-dir "$build" --parallel 2 --output-on-failure --no-tests=error >"$log" 2>&1 || true
  # ctest's own summary: "98% tests passed, 2 tests failed out of 93"
  if [[ $(<"$log") =~ tests\ passed,\ ([0-9]+)\ tests\ failed\ out\ of\ ([0-9]+) ]]; then
    bad=${BASH_REMATCH[1]} total=${BASH_REMATCH[2]}
  else
    bad=1 total=1
  fi
  ((bad == 0)) || grep -v ' Passed \|^ *Start ' "$log" >&2
  passed=$((passed + total - bad))
  failed=$((failed + bad))
}

run_tests build/native-test -DSV_SANITIZE=OFF
run_tests build/native-test-sanitized -DSV_SANITIZE=ON
# The handover as a Promela model: its own summary is the last line.
native/test/model/run.sh >"$log" || true
if [[ $(tail -n 1 "$log") =~ ^model:\ ([0-9]+)\ passed,\ ([0-9]+)\ failed$ ]]; then
  passed=$((passed + BASH_REMATCH[1])) failed=$((failed + BASH_REMATCH[2]))
else
  echo "native: the model did not run to its end" >&2
  failed=$((failed + 1))
fi
echo "native: $passed passed, $failed failed"
((failed == 0))
