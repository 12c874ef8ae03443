# GNU make, on Linux and macOS. `make help` lists the targets.

AZURITE_VERSION := 3.35.0
CARGO_CYCLONEDX_VERSION := 0.5.9
CARGO_DENY_VERSION := 0.20.2
CARGO_FUZZ_VERSION := 0.13.2
CARGO_LLVM_COV_VERSION := 0.9.1

TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
BINARY     ?= $(TARGET_DIR)/release/onward
PYTHON     ?= python3
CARGO_LLVM_COV := .tools/cargo-llvm-cov-$(CARGO_LLVM_COV_VERSION)/bin/cargo-llvm-cov
CARGO_CYCLONEDX := .tools/cargo-cyclonedx-$(CARGO_CYCLONEDX_VERSION)/bin/cargo-cyclonedx
CARGO_DENY := .tools/cargo-deny-$(CARGO_DENY_VERSION)/bin/cargo-deny
CARGO_FUZZ := .tools/cargo-fuzz-$(CARGO_FUZZ_VERSION)/bin/cargo-fuzz

LIBRARY_Darwin := libonnxruntime.dylib
LIBRARY := .onnxruntime/$(or $(LIBRARY_$(shell uname -s)),libonnxruntime.so)

.DEFAULT_GOAL := help
.PHONY: help onnxruntime build serve stores clients azurite test test-clients perf-analyzer test-interleavings fuzz lint deny coverage schema bench bench-allocations bench-codec bench-crowd bench-growth bench-guard bench-isolation bench-memory bench-probes bench-profile bench-shadow bench-start bench-starvation bench-swap bench-table check-metrics check-containers prometheus-rule sbom clean

help: ## list the targets
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "%-18s %s\n", $$1, $$2 }' Makefile

onnxruntime: $(LIBRARY) ## fetch the pinned ONNX Runtime library into .onnxruntime/

$(LIBRARY): scripts/fetch_onnxruntime.py
	$(PYTHON) scripts/fetch_onnxruntime.py
	@touch $@

build: ## build the release binary
	cargo build --locked --release

serve: onnxruntime build ## serve ./models on 127.0.0.1:8000; more flags by ARGS='...'
	$(BINARY) serve $(ARGS)

stores: $(TARGET_DIR)/stores/installed ## install the servers of object stores that tests run against

$(TARGET_DIR)/stores/installed: tests/stores.requirements.txt
	rm -rf $(TARGET_DIR)/stores
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps --target $(TARGET_DIR)/stores -r $<
	@touch $@

clients: $(TARGET_DIR)/clients/installed ## install what judges the server in tests

$(TARGET_DIR)/clients/installed: tests/clients.requirements.txt
	rm -rf $(TARGET_DIR)/clients
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps --target $(TARGET_DIR)/clients -r $<
	@touch $@

test-clients: onnxruntime clients stores $(CARGO_CYCLONEDX) ## let Triton's client, ONNX's operator tests, Schemathesis and others judge the server
	cargo test --locked --no-run --test it
	PYTHONPATH=$(TARGET_DIR)/clients PYTHONDONTWRITEBYTECODE=1 SERVER_BINARY=$(abspath $(TARGET_DIR))/debug/onward \
		CARGO_CYCLONEDX=$(abspath $(CARGO_CYCLONEDX)) $(PYTHON) -m pytest -q -p no:cacheprovider tests/clients

perf-analyzer: build onnxruntime clients $(TARGET_DIR)/perf-analyzer/installed ## measure the server with Triton's perf_analyzer (Linux on x86-64)
	PERF_ANALYZER=$(abspath $(TARGET_DIR))/perf-analyzer PYTHONPATH=$(TARGET_DIR)/clients PYTHONDONTWRITEBYTECODE=1 \
		SERVER_BINARY=$(abspath $(BINARY)) $(PYTHON) -m pytest -q -p no:cacheprovider tests/clients/perf_analyzer.py

$(TARGET_DIR)/perf-analyzer/installed: tests/perf_analyzer.requirements.txt
	rm -rf $(TARGET_DIR)/perf-analyzer
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps --target $(TARGET_DIR)/perf-analyzer -r $<
	@touch $@

azurite: ## install Azure's emulator too, with npm; tests run against it from then on
	npm install --silent --no-audit --no-fund --prefix $(TARGET_DIR)/azurite azurite@$(AZURITE_VERSION)

test: onnxruntime stores test-interleavings test-clients ## run all tests
	cargo test --locked

test-interleavings: ## check the lock-free parts under every order of their steps
	RUSTFLAGS="--cfg loom" cargo test --locked --release --manifest-path tests/interleavings/Cargo.toml \
		--target-dir $(TARGET_DIR)/interleavings

# What is fuzzed, for how many seconds each, and what watches it, which may be none.
TARGETS ?= $(basename $(notdir $(wildcard fuzz/targets/*.rs)))
SECONDS ?= 600
SANITIZER ?= address

# A run of a target may take 10 s, 1 GiB in all and 64 MiB at once: some thousand times what it is given.
FUZZ_LIMITS := -timeout=10 -rss_limit_mb=1024 -malloc_limit_mb=64 -max_len=65536

# The toolchain is the stable one, which lets a sanitizer watch only when it is told that it is another.
fuzz: export RUSTC_BOOTSTRAP := 1
fuzz: $(CARGO_FUZZ) ## fuzz what reads bytes of strangers, SECONDS=600 for each of TARGETS='...'
	@set -e; for target in $(TARGETS); do \
		mkdir -p fuzz/corpus/$$target; \
		$(CARGO_FUZZ) fuzz run --sanitizer $(SANITIZER) --target-dir $(TARGET_DIR)/fuzz $$target fuzz/corpus/$$target \
			$$(ls -d fuzz/seeds/$$target fuzz/regressions/$$target 2>/dev/null) -- \
			-max_total_time=$(SECONDS) $(FUZZ_LIMITS) -dict=fuzz/words.dict -print_final_stats=1; \
	done

# The servers that tests start write their counts as they go, so that those are there also after a kill.
coverage: export RUSTFLAGS := -C llvm-args=-runtime-counter-relocation
coverage: export LLVM_PROFILE_FILE_NAME := onward-%p%c.profraw
coverage: onnxruntime stores $(CARGO_LLVM_COV) ## run all tests, and tell how many lines of the sources they reach
	rustup component add llvm-tools
	$(CARGO_LLVM_COV) llvm-cov clean --workspace
	$(CARGO_LLVM_COV) llvm-cov run --locked --no-report --example embed -- --jobs 1
	$(CARGO_LLVM_COV) llvm-cov test --locked --no-report
	$(CARGO_LLVM_COV) llvm-cov report --lcov --output-path $(TARGET_DIR)/coverage.lcov
	$(PYTHON) scripts/coverage.py $(TARGET_DIR)/coverage.lcov --least src/lifecycle=95 --least src=90

lint: ## check format, clippy, documentation and the dependency policy
	cargo fmt --check
	cargo fmt --check --manifest-path fuzz/Cargo.toml
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps
	@$(MAKE) --no-print-directory deny

deny: $(CARGO_DENY) ## check licenses, sources and bans of the dependencies
	$(CARGO_DENY) --locked check --hide-inclusion-graph bans licenses sources

# The time is the commit's, so that the same commit has the same file everywhere.
sbom: $(CARGO_CYCLONEDX) ## write what the release binary is made of, and ONNX Runtime, as CycloneDX into target/sbom/; ARGS='--platform linux-aarch64'
	SOURCE_DATE_EPOCH=$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct)} \
		$(PYTHON) -B scripts/sbom.py $(CARGO_CYCLONEDX) $(TARGET_DIR)/sbom/onward.cdx.json $(ARGS)

# Unoptimised, which compiles in a minute; a check takes about a second all the same.
$(CARGO_LLVM_COV):
	env -u RUSTFLAGS cargo install --locked --debug --root .tools/cargo-llvm-cov-$(CARGO_LLVM_COV_VERSION) \
		--version $(CARGO_LLVM_COV_VERSION) cargo-llvm-cov

$(CARGO_CYCLONEDX):
	env -u RUSTFLAGS cargo install --locked --debug --root .tools/cargo-cyclonedx-$(CARGO_CYCLONEDX_VERSION) \
		--version $(CARGO_CYCLONEDX_VERSION) cargo-cyclonedx

$(CARGO_DENY):
	cargo install --locked --debug --root .tools/cargo-deny-$(CARGO_DENY_VERSION) \
		--version $(CARGO_DENY_VERSION) cargo-deny

$(CARGO_FUZZ):
	env -u RUSTFLAGS -u RUSTC_BOOTSTRAP cargo install --locked --debug --root .tools/cargo-fuzz-$(CARGO_FUZZ_VERSION) \
		--version $(CARGO_FUZZ_VERSION) cargo-fuzz

RULE := deploy/kubernetes/components/monitoring/prometheusrule.yaml

prometheus-rule: ## write the PrometheusRule of deploy/kubernetes anew from deploy/prometheus/rules.yml
	$(PYTHON) scripts/prometheus_rule.py < deploy/prometheus/rules.yml > $(RULE).new
	mv $(RULE).new $(RULE)

schema: ## write the JSON Schema of the configuration file anew
	cargo run --locked --quiet -- config --schema > docs/config.schema.json.new
	mv docs/config.schema.json.new docs/config.schema.json

# Where benchmarks leave what they have found.
FIGURES := $(abspath $(TARGET_DIR))/bench

# ONNX Runtime starts a telemetry thread of its own in whatever loads it, unless it is told not to.
bench: export ORT_DISABLE_TELEMETRY := 1
bench: onnxruntime ## compare the server with ONNX Runtime alone: models, protocols, connections; ARGS='...'
	cargo bench --locked --bench grid -- --json $(FIGURES)/grid.json $(ARGS)

bench-guard: bench ## run the grid, and fail where a ratio is worse than in docs/performance.md
	$(PYTHON) scripts/performance.py guard $(FIGURES)/grid.json

bench-table: bench bench-start bench-growth bench-crowd bench-allocations bench-profile ## run what docs/performance.md has figures of, and write it anew
	$(PYTHON) scripts/performance.py write $(addprefix $(FIGURES)/,grid.json start.json growth.json crowd.json allocations.json profile.json)

bench-start: export ORT_DISABLE_TELEMETRY := 1
bench-start: onnxruntime ## time the start with the sample models, and tell the memory of an empty server
	cargo bench --locked --bench start -- --json $(FIGURES)/start.json

bench-growth: export ORT_DISABLE_TELEMETRY := 1
bench-growth: onnxruntime ## tell what 1 to 1,000 models, 1,000 connections and 64 MB a request cost
	cargo bench --locked --bench growth -- --json $(FIGURES)/growth.json

bench-allocations: export ORT_DISABLE_TELEMETRY := 1
bench-allocations: onnxruntime ## count the allocations of a request
	cargo bench --locked --bench allocations -- --json $(FIGURES)/allocations.json

bench-profile: onnxruntime ## tell by perf where the time of a request goes (Linux)
	cargo bench --locked --bench profile -- --json $(FIGURES)/profile.json
	$(PYTHON) scripts/stacks.py $(FIGURES)/profile.json

bench-codec: ## compare reading and writing of bodies with memcpy and with serde_json's value tree
	cargo bench --locked --bench codec

bench-crowd: export ORT_DISABLE_TELEMETRY := 1
bench-crowd: onnxruntime ## tell what 300 slow connections and bursts of 10,000 do to the p99 of others (Linux)
	cargo bench --locked --bench crowd -- --json $(FIGURES)/crowd.json $(ARGS)

bench-probes: onnxruntime ## compare probes with and without a health check that is stuck
	cargo bench --locked --bench probes -- --rounds 7 --seconds 2

bench-swap: onnxruntime ## swap 200 times under load, and hold every answer to its version
	cargo bench --locked --bench swap

bench-memory: onnxruntime ## swap a model of 100 MB 300 times, and tell the memory in use
	cargo bench --locked --bench memory

bench-shadow: onnxruntime ## compare one model's latency with and without a shadow
	cargo bench --locked --bench shadow

bench-starvation: onnxruntime ## compare what is left of a tiny model's rate beside one that is slow and never idle
	cargo bench --locked --bench starvation

bench-isolation: onnxruntime ## compare one model's latency with and without the load of another
	cargo bench --locked --bench isolation

check-metrics: onnxruntime ## start the release binary and lint its /metrics with promtool
	scripts/check_metrics.sh $(BINARY)

check-containers: ## build and run the container files (Debian, as root; takes minutes)
	scripts/check_containers.sh

clean: ## remove everything that was built or fetched
	cargo clean
	rm -rf .onnxruntime .tools
