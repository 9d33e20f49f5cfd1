#!/usr/bin/env bash
# npm run soak: installs what is missing, builds, and runs the soak (docs/soak.md) with the same arguments.
# All talk of the first two goes to stderr: the first line on stdout is the seed.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh >&2
bash scripts/build.sh >&2
exec node dist/soak/main.js "$@"
