#!/usr/bin/env bash
# Builds the real programs that tests and `make demo` run, from the Go modules pinned beside this file, into a
# per-user cache. A family is rebuilt only when its go.mod or go.sum changes, so a fresh clone builds nothing twice.
#
#   tools.sh build   build what is missing, with progress
#   tools.sh path    print the directory that holds the programs (fails, naming the make target, when one is missing)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${POLICY_OPERATOR_TOOLS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/policy-operator/tools}
kubernetes_version=$(sed -n 's/.*k8s\.io\/kubernetes \(v[0-9.]*\).*/\1/p' "$here/kubernetes/go.mod" | head -n 1)

# family, program, package
programs() {
  cat <<TABLE
etcd       etcd                    go.etcd.io/etcd/server/v3
kubernetes kube-apiserver          k8s.io/kubernetes/cmd/kube-apiserver
kubernetes kube-controller-manager k8s.io/kubernetes/cmd/kube-controller-manager
kubernetes kubectl                 k8s.io/kubernetes/cmd/kubectl
opa        opa                     github.com/open-policy-agent/opa
registry   registry                github.com/distribution/distribution/v3/cmd/registry
cosign     cosign                  github.com/sigstore/cosign/v3/cmd/cosign
TABLE
}

# What decides a family's bytes: its pins and the Go release that builds them.
family_key() {
  { cat "$here/$1/go.mod" "$here/$1/go.sum"; go env GOVERSION GOOS GOARCH; } | sha256sum | cut -c 1-16
}

linker_flags() {
  local flags="-s -w"
  if [ "$1" = kubernetes ]; then
    local package=k8s.io/component-base/version major minor
    IFS=. read -r major minor _ <<<"${kubernetes_version#v}"
    flags="$flags -X $package.gitVersion=$kubernetes_version -X $package.gitMajor=$major -X $package.gitMinor=$minor -X $package.gitTreeState=clean"
  fi
  printf '%s' "$flags"
}

# One directory with a link to every program, named by all keys together.
bin_directory() {
  local keys="" family
  for family in $(programs | awk '{print $1}' | sort -u); do keys="$keys $family-$(family_key "$family")"; done
  printf '%s/bin-%s' "$cache" "$(printf '%s' "$keys" | sha256sum | cut -c 1-16)"
}

build() {
  command -v go >/dev/null || { echo "tools: 'go' is not on PATH: install Go 1.26 or newer" >&2; exit 1; }
  local bin total=0 n=0 family program package target
  bin=$(bin_directory)
  mkdir -p "$bin"
  total=$(programs | wc -l)
  while read -r family program package; do
    n=$((n + 1))
    target=$cache/$family-$(family_key "$family")/$program
    if [ -x "$target" ]; then
      printf 'tools: [%d/%d] %-24s cached\n' "$n" "$total" "$program"
    else
      printf 'tools: [%d/%d] %-24s building (the first build of all takes about 15 minutes on 2 cores) ...\n' "$n" "$total" "$program"
      local started=$SECONDS
      mkdir -p "$(dirname "$target")"
      (cd "$here/$family" && GOFLAGS=-mod=readonly CGO_ENABLED=0 \
        go build -trimpath -buildvcs=false -ldflags "$(linker_flags "$family")" -o "$target.partial.$$" "$package")
      mv "$target.partial.$$" "$target"
      printf 'tools: [%d/%d] %-24s built in %d s\n' "$n" "$total" "$program" $((SECONDS - started))
    fi
    ln -sfn "$target" "$bin/$program"
  done < <(programs)
  echo "tools: ready in $bin"
}

path() {
  local bin program
  bin=$(bin_directory)
  while read -r _ program _; do
    [ -x "$bin/$program" ] || { echo "tools: '$program' is not built: run 'make tools'" >&2; exit 1; }
  done < <(programs)
  printf '%s\n' "$bin"
}

case "${1:-}" in
  build) build ;;
  path) path ;;
  *) echo "usage: tools.sh build | path" >&2; exit 2 ;;
esac
