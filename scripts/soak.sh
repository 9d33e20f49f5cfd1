#!/usr/bin/env bash
# npm run soak: installs what is missing, builds, and runs the soak (docs/soak.md) with the same arguments.
# All talk of the first two goes to stderr: the first line on stdout is the seed.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
# npm changes to the package; paths are meant from where the user is.
if [[ ${npm_lifecycle_event-} == soak && -d ${INIT_CWD-} ]]; then cd "$INIT_CWD"; fi
bash "$root/scripts/setup.sh" >&2
bash "$root/scripts/build.sh" >&2
exec node "$root/dist/soak/main.js" "$@"
