SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help need demo cluster test build fmt lint generate verify deny tools bench

CRD := config/crd/opcr.io_policyimages.yaml

help: ## Print this
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

need:
	@for program in cargo go git; do \
	  command -v $$program >/dev/null || { echo "make: '$$program' is not on PATH; needed are Rust (rustup.rs), Go 1.26 or newer, and git" >&2; exit 1; }; \
	done

demo: tools ## Show the main job on a local control plane, registry and OPA (DEMO_ONCE=1: end after it)
	@cargo build --bin policy-operator
	@cargo run --quiet --package policy-operator-harness --bin demo

cluster: tools ## Start a local control plane with the CRD and rights installed, and print its kubeconfig
	@cargo run --quiet --package policy-operator-harness --bin cluster

test: tools ## Run all tests, against real programs
	@cargo build --bin policy-operator
	cargo test --workspace

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
	@cargo run --quiet --bin policy-operator -- crd > $(CRD).partial || { rm -f $(CRD).partial; exit 1; }
	@mv $(CRD).partial $(CRD)

verify: generate ## Generate, and fail when that changes anything
	@.ci/verify.sh

deny: ## Check licences, bans, sources and advisories of dependencies (ADVISORY_DB=directory: offline)
	@.ci/deny.sh

tools: need ## Build the programs that tests run, once, into the user's cache
	@e2e/tools/tools.sh build

bench: tools ## Measure a thousand objects against the floor (BENCH_IDLE=seconds of idling, BENCH_SCENARIOS=names)
	@cargo build --release --bin policy-operator
	@cargo build --release --quiet --package policy-operator-harness --bin bench
	@cargo run --release --quiet --package policy-operator-harness --bin bench
