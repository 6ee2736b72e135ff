# Every way to build and check signet. All output goes under target/.
#
# SIGNET_PEERS=required  a peer that cannot be had (Envoy, OpenSSL, …) is an error, not a skip
# SIGNET_ENVOY=PATH      an Envoy of your own instead of the one from the Python package
# SIGNET_PYTHON=PATH     a Python of your own that has the packages spiffe and websockets
# SIGNET_GO_CLIENT=PATH  a build of your own of tests/clients/go
# KUBEBUILDER_ASSETS=DIR kube-apiserver and etcd of your own for test-kube

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

target := $(or $(CARGO_TARGET_DIR),target)
test_out := $(CURDIR)/target/test-summary
demo := $(target)/debug/signet-demo
bench := $(target)/release/signet-bench

# Tests are selected by --workspace everywhere, never by -p: the features of shared dependencies
# depend on the packages selected, and a different selection compiles most of the tree again. For
# the same reason the programs are built together with the tests that run them.
build_for_tests := cargo build --workspace --bins --tests
run_tests = SIGNET_SKIP_LOG=$(test_out)/$(1).skipped scripts/test-summary.py --out $(test_out)/$(1).json --

# What `make check` is, in this order; CI times each of them.
checks := fmt-check deny clippy doc test

.PHONY: help build demo test test-kube check list-checks $(checks) bench fuzz audit fmt clean

help: ## this list
	@sed -nE 's/^([a-z][a-z-]*):.*## (.*)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 20

build: ## all programs, for debugging
	cargo build --workspace --bins

demo: ## one agent, two Envoys and three proxies, mutual TLS, policies, renewals in front of you (under 3 minutes)
	@SIGNET_PEERS=required scripts/with-envoy.sh true || \
	  { echo 'demo: it needs a real Envoy, which could not be set up (see above)' >&2; exit 1; }
	cargo build --workspace --bins
	@SIGNET_PEERS=required scripts/with-envoy.sh $(demo)

test: ## all tests but those of test-kube, with Envoy and SPIFFE clients of others where they can be had
	@mkdir -p $(test_out)
	$(build_for_tests)
	@SIGNET_KUBE_TESTS=separately scripts/with-peers.sh \
	  env $(call run_tests,test) cargo test --workspace --no-fail-fast

test-kube: ## the tests that need a real kube-apiserver (built once, about five minutes)
	@mkdir -p $(test_out)
	$(build_for_tests)
	@assets=$$(scripts/build-kube-apiserver.sh) && \
	  exec env KUBEBUILDER_ASSETS="$$assets" $(call run_tests,test-kube) cargo test --workspace --test kube --no-fail-fast -- api::

check: $(checks) ## everything a change must pass, but test-kube

list-checks:
	@echo $(checks)

fmt-check:
	cargo fmt --all --check

deny:
	scripts/cargo-deny.sh check bans licenses sources

clippy:
	cargo clippy --workspace --all-targets -- -D warnings

doc:
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

bench: ## speed and size, as a table
	cargo build --release --workspace --bins
	@$(bench)

fuzz: ## long fuzz runs: make fuzz [TARGET=name] [TIME=seconds per target]
	@scripts/fuzz.sh $(if $(TARGET),'$(TARGET)') $(if $(TIME),'$(TIME)')

audit: ## known vulnerabilities in the dependencies, where the network allows it
	@scripts/audit.sh

fmt: ## format the sources
	cargo fmt --all

clean: ## remove target/
	cargo clean
	rm -rf target
