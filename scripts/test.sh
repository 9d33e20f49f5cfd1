#!/usr/bin/env bash
# Everything: set-up, build, lint, unit tests, native tests (plain and sanitized), integration tests,
# end-to-end tests in the lab. Ends with the sum: "N passed, N failed, N skipped".
# `npm test -- unit integration` runs only the named parts: lint unit native integration e2e.
set -uo pipefail
cd "$(dirname "$0")/.."

parts=("$@")
((${#parts[@]})) || parts=(lint unit native integration e2e)
results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT

bash scripts/setup.sh || exit 3
bash scripts/build.sh || { echo "0 passed, 1 failed"; exit 1; }

for part in "${parts[@]}"; do
  echo "== $part ($(date +%H:%M:%S))"
  case $part in
    lint) bash scripts/lint.sh | tee "$results/lint.txt" ;;
    native) bash scripts/test-native.sh | tee "$results/native.txt" ;;
    unit | integration | e2e)
      npx --no-install vitest run --project "$part" --reporter=default --reporter=json \
        --outputFile.json="$results/$part.json" || echo "$part" >>"$results/vitest.failed"
      [[ -s $results/$part.json ]] || echo "$part: 0 passed, 1 failed" >"$results/$part.txt"
      ;;
    *)
      echo "test: unknown part \"$part\"; there are: lint unit native integration e2e" >&2
      exit 2
      ;;
  esac
done
echo "== sum ($(date +%H:%M:%S))"
node scripts/sum-tests.js "$results"
