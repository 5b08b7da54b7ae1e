#!/usr/bin/env bash
# Checks licences, bans, sources and advisories of all dependencies.
#
# With ADVISORY_DB set to a directory that holds the RustSec data (crates/…), nothing is asked of the network; without,
# cargo-deny fetches the data itself.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
version=0.20.2
root=${XDG_CACHE_HOME:-$HOME/.cache}/policy-operator/tools/cargo-deny-$version
program=$root/bin/cargo-deny

if [ ! -x "$program" ]; then
  echo "deny: building cargo-deny $version, once, about 5 minutes ..."
  # In a directory of its own, which is removed after it: the caller's target directory stays as it is.
  env -u CARGO_TARGET_DIR cargo install cargo-deny --version "$version" --locked --quiet --root "$root"
fi

if [ -z "${ADVISORY_DB:-}" ]; then
  exec "$program" --config .deny.toml check
fi

[ -d "$ADVISORY_DB/crates" ] || { echo "deny: ADVISORY_DB=$ADVISORY_DB holds no crates/" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# cargo-deny reads only a clone that was fetched, in a directory named by the hash of its URL.
clone=$work/advisory-db-3157b0e258782691
cp -r "$ADVISORY_DB" "$clone"
chmod -R u+w "$clone"
git -C "$clone" init --quiet
git -C "$clone" add --all
git -C "$clone" -c user.name=deny -c user.email=deny@localhost commit --quiet --message data
git -C "$clone" rev-parse HEAD >"$clone/.git/FETCH_HEAD"
sed "s|^\[advisories\]|&\ndb-path = \"$work\"|" .deny.toml >"$work/deny.toml"
# The sources of all dependencies, for every platform, come from cargo's own registry.
cargo fetch --locked --quiet
"$program" --offline --config "$work/deny.toml" check
