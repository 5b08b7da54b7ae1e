#!/usr/bin/env bash
# Runs all tests, and lists the ten slowest of all test programs, whether the tests pass or not.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
TEST_TIMES=$(mktemp)
export TEST_TIMES
trap 'rm -f "$TEST_TIMES"' EXIT

status=0
triple=$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
env "CARGO_TARGET_${triple}_RUNNER=$PWD/.ci/time-tests.sh" cargo test --workspace "$@" || status=$?

if [ -s "$TEST_TIMES" ]; then
  printf '\nslowest tests:\n'
  sort -rn "$TEST_TIMES" | awk 'NR <= 10 { printf "%8.2f s  %s %s\n", $1, $2, $3 }'
fi
exit "$status"
