# One line each: the names people type are the names CI calls. `make help` lists them.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Where cargo puts what it builds; honoured, so that several trees can share a machine.
TARGET := $(or $(CARGO_TARGET_DIR),target)
PEERS := $(or $(CARGO_TARGET_DIR),benches/peers/target)
# Seeds the simulation runs in `make test`, and in `make sim`.
SEEDS_TEST ?= 300
SEEDS ?= 5000
# Seconds for each fuzz target.
TIME ?= 60
# Arguments of the measuring harness, as BENCH="--rounds 3 --only cdc-peer,daisi".
BENCH ?=
# Arguments of the gate, as GATE="--only instructions,allocations", and the reason of `make gate-accept`.
GATE ?=
export REASON ?=
# Profile that the gate itself is built with; what it measures is always optimised.
GATE_PROFILE ?= release
GATE_RUN = cargo run -q --profile $(GATE_PROFILE) -p daisi-bench -- --daisi $(TARGET)/release/daisi \
	--relay $(TARGET)/release/daisi-relay --peers $(PEERS)/release
NATS_NEWER_VERSION ?= v2.12.1
NATS_NEWER := $(CURDIR)/.daisi/bin/nats-server

# Tests that compare two NATS versions take the newer one from here, if `make nats-newer` put it there.
ifneq ($(wildcard $(NATS_NEWER)),)
export DAISI_NATS_SERVER_NEWER ?= $(NATS_NEWER)
endif
# Seconds of load in `make demo`; without it, until Ctrl-C on a terminal and 30 s elsewhere.
ifdef DEMO_SECONDS
export DEMO_SECONDS
endif

.PHONY: help
help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: demo
demo: build ## The whole path on this machine with private servers; DEMO_SECONDS=10 ends it by itself
	@$(TARGET)/release/daisi demo

.PHONY: test
test: setup cpu ## Every test, against real servers too, and a few hundred simulated runs
	cargo test -p daisi-shards --no-default-features
	DAISI_SIM_SEEDS=$(SEEDS_TEST) cargo test --workspace --features daisi/fault

.PHONY: live
live: setup cpu ## The built binary against real servers alone, kill points included
	cargo test -p daisi --features fault --test live

.PHONY: lint
lint: style ## style, then licences and advisories where cargo-deny is installed
	@if command -v cargo-deny >/dev/null; then cargo deny --all-features check; \
	else echo 'lint: cargo-deny is not installed, so licences and advisories were not checked: make deny'; fi

.PHONY: style
style: cpu ## Format, and clippy with and without the feature runtime
	cargo fmt --all --check
	cargo fmt --manifest-path benches/peers/Cargo.toml --check
	cargo clippy --workspace --features daisi/fault --all-targets -- -D warnings
	cargo clippy -p daisi-shards --no-default-features --all-targets -- -D warnings

.PHONY: setup
setup: ## Install what is missing: compiler, servers the tests start. Silent when nothing is
	@tools/setup.sh

.PHONY: cpu
cpu:
	@tools/cpu.sh

.PHONY: build
build: setup cpu ## daisi, optimised, for x86-64-v3
	cargo build --release -p daisi

.PHONY: sim
sim: cpu ## The simulation alone, optimised: SEEDS=5000, or DAISI_SIM_SEED=n for one of them
	DAISI_SIM_SEEDS=$(SEEDS) cargo test --release -p daisi-shards --no-default-features --test sim

.PHONY: fuzz
fuzz: cpu ## Every fuzz target for TIME=60 seconds; needs a nightly compiler
	@cargo +nightly --version >/dev/null 2>&1 || { echo 'fuzz: needs a nightly compiler: rustup toolchain install nightly --profile minimal'; exit 1; }
	@command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz
	cd shards && for target in $$(cargo +nightly fuzz list); do \
		cargo +nightly fuzz run "$$target" -- -max_total_time=$(TIME) -timeout=10; done

.PHONY: bench
bench: build ## Parts alone, then both jobs beside their peers, as one table; BENCH= takes arguments (benches/README.md)
	cargo build --release -p daisi-bench -p daisi-relay
	cargo build --release --manifest-path benches/peers/Cargo.toml
	$(TARGET)/release/bench --daisi $(TARGET)/release/daisi --relay $(TARGET)/release/daisi-relay --peers $(PEERS)/release --micro $(BENCH)

.PHONY: bench-micro
bench-micro: cpu ## Time and allocations an event of each part alone
	cargo bench -p daisi-shards --bench micro

.PHONY: gate
gate: setup cpu ## Fail if something costs more than benches/baseline.toml says; GATE="--only instructions" for a part
	@$(GATE_RUN) gate $(GATE)

.PHONY: gate-accept
gate-accept: setup cpu ## Write what is measured now into the baseline: REASON="why it costs more"
	@[ -n "$$REASON" ] || { echo 'gate-accept: say why: make gate-accept REASON="..."'; exit 2; }
	@$(GATE_RUN) gate-accept --reason "$$REASON" $(GATE)

.PHONY: gate-test
gate-test: setup cpu ## Prove that the gate fails builds that are slow on purpose; GATE="--only calls" for a part
	@$(GATE_RUN) gate-test $(GATE)

.PHONY: deny
deny: ## Licences, advisories, duplicates, sources (deny.toml); installs cargo-deny when missing
	@command -v cargo-deny >/dev/null || cargo install --locked cargo-deny
	cargo deny --all-features check

.PHONY: nats-newer
nats-newer: ## A newer nats-server into .daisi/bin, for the tests that compare two versions
	@command -v go >/dev/null || { echo 'nats-newer: needs Go: https://go.dev/dl/ or apt install golang-go'; exit 1; }
	GOBIN=$(dir $(NATS_NEWER)) go install github.com/nats-io/nats-server/v2@$(NATS_NEWER_VERSION)
	@$(NATS_NEWER) --version

.PHONY: clean
clean: ## Remove what was built and measured
	cargo clean
	rm -rf benches/peers/target shards/fuzz/target shards/fuzz/corpus shards/fuzz/artifacts .daisi bench-results
