#!/usr/bin/env bash
# Installs what symvirt needs to build and to run its lab on a Debian machine: missing Debian
# packages by apt, and node_modules by npm. Says what it does; does nothing when nothing is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

# What a Node.js that is too old says by itself is a syntax error somewhere.
if ! node -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 20 || (a === 20 && b >= 19) ? 0 : 1)' 2>/dev/null; then
  echo "setup: Node.js 20.19 or newer is needed, and this is $(node --version 2>/dev/null || echo none)" >&2
  echo "  Debian 12's own is 18: install one from nodesource.com or nodejs.org, with its npm" >&2
  exit 3
fi

packages=(
  # the lab: guests, their image, their network
  qemu-system-x86 qemu-utils debootstrap debian-archive-keyring iproute2 kmod openssh-client
  e2fsprogs cpio xz-utils util-linux zstd socat
  # building libsymvirt.so, the addon and the workloads; ranks on the host in tests
  gcc g++ make cmake python3 libc6-dev
  openmpi-bin libopenmpi-dev libibverbs-dev librdmacm-dev ibverbs-providers rdma-core
  # checks
  clang-format cppcheck spin
)

missing=()
installed=" $(dpkg-query -W -f '${db:Status-Abbrev}${Package} ' "${packages[@]}" 2>/dev/null || true)"
for package in "${packages[@]}"; do
  [[ $installed == *" ii $package "* || $installed == *"ii  $package "* ]] || missing+=("$package")
done

if ((${#missing[@]})); then
  echo "setup: installing Debian packages: ${missing[*]}" >&2
  as_root=()
  if ((EUID != 0)); then
    if ! command -v sudo >/dev/null; then
      echo "setup: run this as root: it installs packages, and there is no sudo" >&2
      exit 3
    fi
    as_root=(sudo)
  fi
  log=$(mktemp)
  # A broken entry of some other archive must not stop us: what counts is whether install works.
  "${as_root[@]}" apt-get -qq update >"$log" 2>&1 || { echo "setup: apt-get update complained:" >&2; tail -n 5 "$log" >&2; }
  if ! "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get -qq -y install --no-install-recommends "${missing[@]}" >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    echo "setup: apt-get install failed (its words are above)" >&2
    exit 3
  fi
  rm -f "$log"
fi

if [[ ! -e node_modules/.package-lock.json || package-lock.json -nt node_modules/.package-lock.json ]]; then
  echo "setup: installing node packages (npm ci)" >&2
  npm ci --no-audit --no-fund --loglevel=error >&2
  touch node_modules/.package-lock.json
fi
