SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help need demo cluster test build fmt lint generate verify deny tools bench soak

CRD := config/crd/opcr.io_policyimages.yaml
# All of the workspace is always built together: for one package alone, cargo would choose other features for the
# dependencies, and build them again.
DEBUG := $(or $(CARGO_TARGET_DIR),target)/debug

help: ## Print this
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

need:
	@for program in cargo cc git; do \
	  command -v $$program >/dev/null || { echo "make: '$$program' is not on PATH; needed are Rust (rustup.rs), a C compiler, Go 1.26 or newer, and git" >&2; exit 1; }; \
	done

# Each target names the programs that it runs: none waits for the build of one that it does not need.
demo: need ## Show the main job on a local control plane, registry and OPA (DEMO_ONCE=1: end after it)
	@e2e/tools/tools.sh build etcd kube-apiserver kubectl opa registry cosign
	@cargo build --workspace --bins
	@$(DEBUG)/demo

cluster: need ## Start a local control plane with the CRD and RBAC installed, and print its kubeconfig
	@e2e/tools/tools.sh build etcd kube-apiserver kube-controller-manager kubectl
	@cargo build --workspace --bins
	@$(DEBUG)/cluster

test: need tools ## Run all tests against real programs, and list the slowest
	@.ci/test.sh

soak: need tools ## Break everything at random for a while (MINUTES=10, CHAOS_SEED=number repeats a run)
	CHAOS_SECONDS=$$(( $${MINUTES:-10} * 60 )) cargo test --workspace --test it chaos -- --nocapture

build: ## Build the programs for release
	cargo build --release --bins

fmt: ## Format the code
	cargo fmt --all

lint: ## Check format, lints, documentation and the direction of the layers
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo check --quiet --lib --no-default-features
	cargo check --quiet --lib --no-default-features --features testing
	cargo check --quiet --lib --no-default-features --features adapters
	cargo check --quiet --lib --no-default-features --features runtime
	cargo check --quiet --lib --no-default-features --features operator
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --lib

generate: ## Write the generated files: the CRD
	@mkdir -p $(dir $(CRD))
	@cargo build --quiet --workspace --bins
	@$(DEBUG)/policy-operator crd > $(CRD).partial || { rm -f $(CRD).partial; exit 1; }
	@mv $(CRD).partial $(CRD)

verify: generate ## Generate, and fail when that changes anything
	@.ci/verify.sh

deny: ## Check licences, bans, sources and advisories of dependencies (ADVISORY_DB=directory: offline)
	@.ci/deny.sh

tools: ## Build the programs that tests run, once, into the user's cache (TOOLS=names; USE_SYSTEM_TOOLS=1: take those on PATH)
	@e2e/tools/tools.sh build $(TOOLS)

bench: need ## Measure a thousand objects against the floor (BENCH_IDLE=seconds of idling, BENCH_SCENARIOS=names)
	@e2e/tools/tools.sh build etcd kube-apiserver kube-controller-manager kubectl cosign
	@cargo build --release --bin policy-operator
	@cargo build --release --quiet --package policy-operator-harness --bin bench
	@cargo run --release --quiet --package policy-operator-harness --bin bench
