#!/usr/bin/env bash
# Fails when a generated file is not what `make generate` makes: differs from the index, or is not known to git.
# Other changes in the tree do not matter.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
generated=config/crd
difference=$(git status --porcelain --untracked-files=all -- "$generated" | grep -v '^[AM]  ' || true)
if [ -n "$difference" ]; then
  git --no-pager diff -- "$generated"
  echo "verify: generated files are not up to date; run 'make generate' and commit:" >&2
  echo "$difference" >&2
  exit 1
fi
echo "verify: generated files are up to date"
