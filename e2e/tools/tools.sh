#!/usr/bin/env bash
# Provides the real programs that tests and `make demo` run, in a per-user cache. They are built from the Go modules
# pinned beside this file; with USE_SYSTEM_TOOLS=1, a program on PATH of exactly the pinned version is used instead. A
# family is rebuilt only when its go.mod or go.sum changes, so a fresh clone builds nothing twice.
#
#   tools.sh build [NAME…]   provide these programs (all, when none is named)
#   tools.sh path            print the directory that holds them
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${POLICY_OPERATOR_TOOLS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/policy-operator/tools}
# Without Go there are no keys, but programs on PATH can still be used.
go_release=$(cd "$here" && { go env GOVERSION GOOS GOARCH 2>/dev/null || echo none; })
partial=""

# program, family, package, and the arguments that make the program print its version
programs() {
  cat <<TABLE
etcd                    etcd       go.etcd.io/etcd/server/v3                        --version
kube-apiserver          kubernetes k8s.io/kubernetes/cmd/kube-apiserver             --version
kube-controller-manager kubernetes k8s.io/kubernetes/cmd/kube-controller-manager    --version
kubectl                 kubernetes k8s.io/kubernetes/cmd/kubectl                    version --client
opa                     opa        github.com/open-policy-agent/opa                 version
registry                registry   github.com/distribution/distribution/v3/cmd/registry --version
cosign                  cosign     github.com/sigstore/cosign/v3/cmd/cosign         version
TABLE
}

fail() {
  printf 'tools: %s\n' "$1" >&2
  exit "${2:-1}"
}

make_directory() {
  mkdir -p "$1" 2>/dev/null || fail "'$1' cannot be made; name another directory in POLICY_OPERATOR_TOOLS_CACHE"
}

duration() {
  if [ "$1" -lt 60 ]; then printf '%d s' "$1"; else printf '%d min %d s' $(($1 / 60)) $(($1 % 60)); fi
}

# What decides a family's bytes: its pins and the Go release that builds them.
family_key() {
  { cat "$here/$1/go.mod" "$here/$1/go.sum"; printf '%s\n' "$go_release"; } | sha256sum | cut -c 1-16
}

# One directory with a link to every program, named by all keys together.
bin_directory() {
  local keys="" family
  for family in $(programs | awk '{ print $2 }' | sort -u); do keys="$keys $family-$(family_key "$family")"; done
  printf '%s/bin-%s' "$cache" "$(printf '%s' "$keys" | sha256sum | cut -c 1-16)"
}

# The version of the module that holds the package, as the family's go.mod pins it.
pinned_version() {
  awk -v package="$2/" 'index(package, $1 "/") == 1 && $2 ~ /^v/ { print $2; exit }' "$here/$1/go.mod"
}

# The first version in what the program prints about itself, without what a build outside of a release adds.
printed_version() {
  local text
  text=$("$@" 2>/dev/null </dev/null) || true
  if [[ $text =~ [0-9]+\.[0-9]+\.[0-9]+[-+.0-9A-Za-z]* ]]; then printf 'v%s' "${BASH_REMATCH[0]%+unknown}"; fi
}

linker_flags() {
  local flags="-s -w" package=k8s.io/component-base/version major minor
  if [ "$1" = kubernetes ]; then
    IFS=. read -r major minor _ <<<"${2#v}"
    flags="$flags -X $package.gitVersion=$2 -X $package.gitMajor=$major -X $package.gitMinor=$minor -X $package.gitTreeState=clean"
  fi
  printf '%s' "$flags"
}

# Why a build failed, in one line, where the log tells.
cause() {
  if grep -qi 'no space left on device' "$1" || [ "$(df -Pk "$cache" | awk 'END { print $4 }')" -lt 1024 ]; then
    echo "no space is left on the disk"
  elif grep -Eq 'dial tcp|no such host|i/o timeout|TLS handshake timeout|network is unreachable|connection refused' "$1"; then
    echo "its modules cannot be downloaded; check the network, or set GOPROXY"
  else
    echo "go build failed"
  fi
}

# Another run may be building the same program: waits for it, and removes what an interrupted one left.
lock() {
  command -v flock >/dev/null || return 0
  exec 9>"$1.lock"
  if ! flock --nonblock 9; then
    printf 'waiting for another run ... '
    flock 9
  fi
  rm -f "$1".partial.*
}

build_one() {
  local program=$1 family=$2 package=$3 version=$4 target=$5 started=$SECONDS log=$5.log
  make_directory "${target%/*}"
  printf 'tools: %-24s %-8s ' "$program" "$version"
  lock "$target"
  if [ ! -x "$target" ]; then
    printf 'building ... '
    partial=$target.partial.$$
    if ! (cd "$here/$family" && GOFLAGS=-mod=readonly CGO_ENABLED=0 go build -trimpath -buildvcs=false \
      -ldflags "$(linker_flags "$family" "$version")" -o "$partial" "$package" >"$log" 2>&1 9>&-); then
      printf 'failed after %s\n' "$(duration $((SECONDS - started)))"
      printf 'tools: %s: %s\ntools: the last lines of %s:\n' "$program" "$(cause "$log")" "$log" >&2
      tail -n 5 "$log" | sed 's/^/  /' >&2
      exit 1
    fi
    mv "$partial" "$target"
  fi
  exec 9>&-
  printf '%s\n' "$(duration $((SECONDS - started)))"
}

# Prints the path of the program on PATH if it is of the pinned version, and why not to standard error.
on_path() {
  local program=$1 pinned=$2 found version
  shift 2
  found=$(command -v "$program") || return 1
  version=$(printed_version "$found" "$@")
  if [ "$version" = "$pinned" ]; then
    printf '%s' "$found"
  else
    printf 'tools: %s is %s, not %s: built instead\n' "$found" "${version:-of unknown version}" "$pinned" >&2
    return 1
  fi
}

build() {
  local bin wanted=" $* " count=0 announced="" name program family package arguments version target
  for name in "$@"; do
    programs | awk -v name="$name" '$1 == name { found = 1 } END { exit !found }' \
      || fail "'$name' is none of the programs: $(programs | awk '{ printf "%s%s", separator, $1; separator = ", " }')" 2
  done
  bin=$(bin_directory)
  make_directory "$bin"
  # The table comes by a descriptor of its own: what is run in the loop must not read it.
  while read -r -u 8 program family package arguments; do
    if [ $# -gt 0 ] && [[ $wanted != *" $program "* ]]; then continue; fi
    count=$((count + 1))
    version=$(pinned_version "$family" "$package")
    # shellcheck disable=SC2086 # several arguments
    if [ "${USE_SYSTEM_TOOLS:-}" = 1 ] && target=$(on_path "$program" "$version" $arguments); then
      printf 'tools: %-24s %-8s on PATH as %s\n' "$program" "$version" "$target"
    else
      target=$cache/$family-$(family_key "$family")/$program
      if [ ! -x "$target" ]; then
        [ "$go_release" != none ] || fail "'$program' has to be built, and 'go' is not on PATH: install Go 1.26 or newer"
        [ -n "$announced" ] || echo "tools: building from source, once; all programs take about 15 minutes on two cores"
        announced=yes
        build_one "$program" "$family" "$package" "$version" "$target"
      fi
    fi
    [ "$(readlink "$bin/$program" || true)" = "$target" ] || ln -sfn "$target" "$bin/$program"
  done 8< <(programs)
  printf 'tools: %d programs ready in %s: %s\n' "$count" "$(duration "$SECONDS")" "$bin"
}

# Whoever interrupts this script interrupts `go build` too, which has ended by then.
interrupted() {
  printf '\ntools: interrupted; what is built stays, and the next run goes on from there\n' >&2
  exit "$1"
}
trap 'interrupted 130' INT
trap 'interrupted 143' TERM
trap 'rm -f "$partial"' EXIT

case "${1:-}" in
  build) build "${@:2}" ;;
  path) bin_directory; echo ;;
  *) fail "usage: tools.sh build [NAME…] | path" 2 ;;
esac
