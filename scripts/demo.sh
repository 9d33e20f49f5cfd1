#!/usr/bin/env bash
# npm run demo: installs what is missing, builds, and runs `symvirt demo` with the same arguments.
# All talk of the first two goes to stderr, so that `npm run -s demo -- --json` prints JSON only.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
# npm changes to the package; paths of --job and --out are meant from where the user is.
if [[ ${npm_lifecycle_event-} == demo && -d ${INIT_CWD-} ]]; then cd "$INIT_CWD"; fi
bash "$root/scripts/setup.sh" >&2
bash "$root/scripts/build.sh" >&2
exec node "$root/bin/symvirt" demo "$@"
