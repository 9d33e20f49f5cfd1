#!/usr/bin/env bash
# npm run eval: installs what is missing, builds, and runs the evaluation (docs/evaluation.md) with the same
# arguments. All talk of the first two goes to stderr: on stdout are results only.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh >&2
bash scripts/build.sh >&2
exec node dist/eval/main.js "$@"
