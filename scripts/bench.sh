#!/usr/bin/env bash
# npm run bench: installs what is missing, builds, and runs a bench (docs/benchmarks.md) with the same
# arguments. All talk of the first two goes to stderr, so that --json prints JSON only.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh >&2
# Counts instructions. Nothing else needs it, so setup.sh does not install it; without it the bench says so.
if [[ ${1-} == overhead ]] && ! command -v valgrind >/dev/null; then
  echo "bench: installing valgrind" >&2
  if ((EUID == 0)); then as_root=(); else as_root=(sudo); fi
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -y install --no-install-recommends valgrind >&2 ||
    echo "bench: valgrind could not be installed" >&2
fi
bash scripts/build.sh >&2
exec node dist/bench/main.js "$@"
