#!/usr/bin/env bash
# Builds everything: dist/ (tsc), build/Release/symvirt.node (node-gyp), build/preload/libsymvirt.so
# and build/workloads/* (cmake). Incremental; prints only what goes wrong, and one line a part built.
set -euo pipefail
cd "$(dirname "$0")/.."
# One build at a time in a tree.
mkdir -p build
exec 9>build/.lock
flock 9

log=$(mktemp)
trap 'rm -f "$log"' EXIT

failed=()
# part NAME COMMAND...: runs it quietly; on failure shows what it said and goes on with the next part.
# In a subshell with its own -e, which an `if` around it would switch off.
part() {
  local name=$1 status=0
  shift
  set +e
  (set -e && "$@") >"$log" 2>&1 9>&-
  status=$?
  set -e
  ((status == 0)) && return
  cat "$log" >&2
  echo "build: $name failed (its words are above)" >&2
  failed+=("$name")
}

typescript() {
  # dist/ is made anew: a source file that is gone must not live on in the guests.
  local new=dist.new
  rm -rf "$new"
  npx --no-install tsc -p tsconfig.build.json --outDir "$new"
  mkdir -p "$new/lab"
  cp -r src/lab/guest "$new/lab/"
  rm -rf dist.old
  [[ ! -e dist ]] || mv dist dist.old
  touch -d "@$started" "$new/.built"
  mv "$new" dist
  rm -rf dist.old
}

# True when dist/ is there and no source is newer than it.
typescript_is_fresh() {
  [[ -e dist/cli/main.js && -d dist/lab/guest ]] || return 1
  [[ -z $(find src tsconfig.json tsconfig.build.json package-lock.json -newer dist/.built -print -quit 2>/dev/null || echo none) ]]
}

addon() {
  local prefix nodedir=()
  prefix=$(dirname "$(dirname "$(node -p 'process.execPath')")")
  # Headers beside the running node: no download.
  [[ -e $prefix/include/node/node.h ]] && nodedir=("--nodedir=$prefix")
  if [[ ! -e build/config.gypi || binding.gyp -nt build/config.gypi ]]; then
    npx --no-install node-gyp configure "${nodedir[@]}"
  fi
  npx --no-install node-gyp build "${nodedir[@]}"
}

# cmake_part SOURCE BUILD
cmake_part() {
  [[ -e $2/Makefile ]] || cmake -S "$1" -B "$2" -DCMAKE_BUILD_TYPE=RelWithDebInfo
  cmake --build "$2" --parallel 2
}

[[ -d node_modules ]] || { echo "build: node_modules is missing; run: npm run setup" >&2; exit 3; }

if ! typescript_is_fresh; then
  started=$(date +%s.%N)
  part "TypeScript" typescript
fi
if [[ -e binding.gyp ]]; then
  part "the addon" addon
else
  echo "build: no binding.gyp, so no addon: the agent will not work" >&2
fi
[[ ! -e native/preload/CMakeLists.txt ]] || part "libsymvirt.so" cmake_part native/preload build/preload
[[ ! -e test/workloads/CMakeLists.txt ]] || part "the workloads" cmake_part test/workloads build/workloads

((${#failed[@]} == 0)) || exit 1
