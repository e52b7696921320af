#!/usr/bin/env bash
# `make test-arm64`: the Go package for arm64, where the compiler may fuse multiply-adds, under qemu-user: the same bits.
# Needs Debian's package qemu-user (or qemu-user-static). Nothing is skipped without it: the exit status is 1.
set -euo pipefail
cd "$(dirname "$0")/../.."

qemu=$(command -v qemu-aarch64-static || command -v qemu-aarch64 || true)
if [[ -z $qemu ]]; then
  echo "test-arm64: qemu-aarch64 is not installed; get it with: apt-get install qemu-user (or qemu-user-static)" >&2
  exit 1
fi
exec .venv/bin/python -m tests.arm64.compare --qemu "$qemu" "$@"
