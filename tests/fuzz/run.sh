#!/usr/bin/env bash
# `make fuzz`: every fuzz target of Go and Python for FUZZ_SECONDS (default 60). No Go target at all is a failure.
set -euo pipefail
cd "$(dirname "$0")/../../go-contract"

seconds=${FUZZ_SECONDS:-60}
if [[ ! $seconds =~ ^[1-9][0-9]*$ ]]; then
  echo "fuzz: FUZZ_SECONDS is '$seconds'; give a number of seconds above 0" >&2
  exit 1
fi
go=$(command -v go || true)
if [[ -z $go ]] || ! "$go" version | grep -qE 'go1\.(2[5-9]|[3-9][0-9])'; then go=../.venv/bin/go; fi

targets=0
while IFS=: read -r file line; do
  target=$(sed -E 's/^func (Fuzz[A-Za-z0-9_]*)\(.*/\1/' <<<"$line")
  echo "== $target in ./$(dirname "$file"), $seconds s"
  CGO_ENABLED=0 "$go" test -run '^$' -fuzz "^$target\$" -fuzztime "${seconds}s" "./$(dirname "$file")"
  targets=$((targets + 1))
done < <(grep -rE '^func Fuzz' --include='*_test.go' . | sed 's|^\./||' | sort)

if ((targets == 0)); then
  echo "fuzz: no fuzz target found in go-contract" >&2
  exit 1
fi
cd ..
for target in requests sample_requests ensemble_requests artifacts carried; do
  echo "== $target of the Python sidecar, $seconds s"
  .venv/bin/python -m tests.fuzz.targets "$target" --seconds "$seconds"
  targets=$((targets + 1))
done
echo "$targets fuzz targets, $seconds s each: nothing found"
