#!/usr/bin/env bash
# Checks handover.pml with spin: the rules as they are, and with one taken out each, which must be
# found. One core, each run within 20 s and 1 GiB. Last line: `model: N passed, N failed`.
set -euo pipefail
model=$(cd "$(dirname "$0")" && pwd)/handover.pml
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
passed=0
failed=0

# check VERDICT NAME DEFINE...: `holds` is the whole state space searched without an error; any other
# verdict is a part of the error wanted.
check() {
  local want=$1 name=$2 found
  shift 2
  if ! { spin -a "$@" "$model" && gcc -O1 -w -DSAFETY -DVECTORSZ=2048 -DMEMLIM=1024 -o pan pan.c; } >log 2>&1; then
    found="does not build"
  elif ! timeout 20 ./pan -m100000 -w22 >log 2>&1; then
    found="does not end"
  elif grep -q '^pan:.*\(reached -DMEMLIM\|max search depth too small\|out of memory\)\|^error: max' log; then
    found="not searched whole"
  elif grep -q 'errors: 0' log; then
    found=holds
  else
    found=$(grep -m 1 '^pan:1:' log || echo "an error without a name")
  fi
  if [[ $found == "$want" || ($want != holds && $found == pan:1:*"$want"*) ]]; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    echo "model: $name: $found, wanted: $want" >&2
    head -n 20 log >&2
  fi
  [[ -z ${VERBOSE-} ]] || { echo "$name: $found"; grep -E 'states, stored|elapsed' log || true; }
}

check holds "2 ranks, put, 3 orders" -DORDERS=3 -DFRAGS=0
check holds "2 ranks, fragments, 3 orders" -DORDERS=3 -DNOPUT
check holds "2 ranks, put and fragments, 2 orders" -DORDERS=2
check holds "2 ranks, 2 fragments each, 2 orders" -DORDERS=2 -DFRAGS=2 -DNOPUT
check holds "3 ranks, put, 2 orders" -DN=3 -DORDERS=2 -DFRAGS=0
check holds "3 ranks, fragments, 2 orders" -DN=3 -DORDERS=2 -DNOPUT
check holds "put with acknowledgement, tcp kept" -DORDERS=2 -DFRAGS=0 -DKEEPTCP
check "number!=7" "the same without acknowledgement" -DNOACK -DORDERS=2 -DFRAGS=0 -DKEEPTCP
check "!(polling[i])" "tear-down without the quiet set" -DNOQUIET -DORDERS=1
check "q_len(ib[me])" "no drain" -DNODRAIN -DORDERS=1 -DNOPUT
check "q_len(ib[me])" "counters not frozen" -DNOFREEZE -DORDERS=1 -DNOPUT
check "invalid end state" "flip back without the ready set" -DNOREADY -DORDERS=3 -DNOPUT
check "!(polling[i])" "a quiet rank leaves, the others go back" -DSPLIT -DORDERS=2 -DNOPUT
check "route[i]" "a new order while tcp is being closed" -DHASTY -DORDERS=3 -DNOPUT
echo "model: $passed passed, $failed failed"
((failed == 0))
