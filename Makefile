# The two commands: `make run` and `make test`. Everything else is below them; `make help` lists it.
BUILD ?= build/release
JOBS ?= $(shell nproc)
SEEDS ?= 2000
CMAKE_FLAGS ?=
# Four more than there are cores: the scripts of tests/net wait most of their time.
TEST_JOBS ?= $(shell expr $$(nproc) + 4)
CTEST = ctest --test-dir $(BUILD) --output-on-failure -j $(TEST_JOBS)
# Scripts that mostly wait: `make test` runs them, the runs with sanitizers do not, so that CI ends in time.
WAITING = net\.(relay_outage|signals|waiting)$$
# Every way to configure is a preset of CMakePresets.json. `make build` adds no tests to a new folder, but keeps them in
# one that has them, where they would otherwise become outdated unnoticed.
configure = cmake --preset $(1) -B $(or $(2),$(BUILD)) $(CMAKE_FLAGS) >/dev/null
PLAIN = $(if $(wildcard $(BUILD)/CMakeCache.txt),release,lean)

.PHONY: help
help: ## Lists the targets
	@grep -hE '^[a-z0-9.-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

.PHONY: run
run: build ## Installs what is missing, builds, and shows one node fetching a folder from another
	@$(BUILD)/apps/kitsune2/kitsune2 demo

.PHONY: build
build: ## Builds the libraries and the program
	@scripts/deps.sh build
	@$(call configure,$(PLAIN))
	@cmake --build $(BUILD) -j $(JOBS)

.PHONY: build-tests
build-tests:
	@scripts/deps.sh build test
	@$(call configure,tests)
	@cmake --build $(BUILD) -j $(JOBS)

.PHONY: test
test: build-tests ## Installs what is missing, builds, and runs every test but the long ones
	@$(CTEST) -LE long

.PHONY: test-long
test-long: build-tests ## The long tests of tests/net: a GiB folder, kills, restarts
	@$(CTEST) -L long

.PHONY: sim
sim: build-tests ## Deterministic simulation over SEEDS seeds
	@K2_SIM_SEEDS=$(SEEDS) $(BUILD)/tests/sim --gtest_filter='*Seeds*'

.PHONY: mutate
mutate: ## Breaks the product on purpose, in a copy: the simulator must see each mutation of tests/sim/mutations
	@scripts/deps.sh build test
	@scripts/mutate.py

.PHONY: interop
interop: build-tests ## One pairing of each kind of test against stock Rust kitsune2 0.2.2 and 0.5.3 (builds them from the registry once)
	@scripts/deps.sh interop
	@tests/interop/run.sh $(BUILD)

.PHONY: interop-0.2
interop-0.2: build-tests ## Every pairing against stock Rust kitsune2 0.2.2
	@scripts/deps.sh interop
	@tests/interop/run.sh --0.2 $(BUILD)

.PHONY: interop-0.5
interop-0.5: build-tests ## Every pairing against stock Rust kitsune2 0.5.3, over their relay and ours
	@scripts/deps.sh interop
	@tests/interop/run.sh --iroh $(BUILD)

.PHONY: interop-all
interop-all: build-tests ## Both, against 0.1.16, 0.2.2, 0.2.17, 0.3.2, 0.4.1 and 0.5.3, and sbd's compliance suite over our relay
	@scripts/deps.sh interop
	@tests/interop/run.sh --all $(BUILD)

# The build is that of `make fuzz`, so that the libraries are compiled once; with clang, which libFuzzer needs. It has
# no programs that replay the corpora, because the fuzz targets start with the corpora. Fewer seeds of the simulator and
# of the fetch twin than `make test` runs (500): each takes eight times as long.
ASAN_SEEDS ?= 150
.PHONY: asan
asan: ## All quick tests under AddressSanitizer and UndefinedBehaviorSanitizer
	@scripts/deps.sh build test ci
	@$(call configure,sanitized,build/sanitized)
	@cmake --build build/sanitized -j $(JOBS)
	@K2_SIM_SEEDS=$(ASAN_SEEDS) K2_TWIN_SEEDS=$(ASAN_SEEDS) scripts/run_parts.py build/sanitized -j $(TEST_JOBS) -LE 'long|install|docs' -E '$(WAITING)'

# Of the scripts those in which threads meet: sharing, fetching, losing a relay. Those about the machine (disk, clock,
# links), about files and about damage have the same threads, and run without a sanitizer and in `make asan`.
TSAN_PROGRAMS = unit_log unit_store unit_net unit_server unit_node unit_files
TSAN_SCRIPTS = folder|fetcher_killed|sharer_restart|relay_restart|sources|missing_ops|tls|program|relay_operator|relay_auth|restart_at_once
.PHONY: tsan
tsan: ## The tests with threads, and the program's, under ThreadSanitizer
	@scripts/deps.sh build test
	@$(call configure,tsan,build/tsan)
	@cmake --build build/tsan -j $(JOBS) --target $(TSAN_PROGRAMS) kitsune2_cli
	@scripts/run_parts.py build/tsan -j $(TEST_JOBS) -L 'unit|net' \
	  -R '^($(subst $() ,|,$(TSAN_PROGRAMS)))\.|^net\.($(TSAN_SCRIPTS))$$' -E NOT_BUILT

.PHONY: fuzz
fuzz: ## Builds the libFuzzer targets and runs each for FUZZ_SECONDS (default 20)
	@scripts/deps.sh build test ci
	@tests/fuzz/run.sh build/sanitized $${FUZZ_SECONDS:-20}

.PHONY: bench
bench: ## Benchmarks against the peers of the field (builds them)
	@scripts/deps.sh build bench interop
	@bench/run.sh

.PHONY: bench-quick
bench-quick: ## The benchmark rows that need no foreign peer
	@scripts/deps.sh build bench
	@bench/run.sh quick

.PHONY: format
format: ## Formats the sources
	@git ls-files '*.cpp' '*.hpp' | xargs clang-format-14 -i

.PHONY: check-format
check-format:
	@git ls-files '*.cpp' '*.hpp' | xargs clang-format-14 --dry-run -Werror

.PHONY: check
check: ## What needs no compiler: layers, file sizes, clocks in the core; links, quotes and commands of the documents
	@scripts/check_rules.py
	@tests/docs/check_text.py

.PHONY: tidy
tidy: ## clang-tidy over sources and tests (an hour; RECENT=1: what changed lately and a part of the rest)
	@scripts/deps.sh build test ci
	@$(call configure,tidy,build/tidy)
	@cmake --build --preset tidy
	@scripts/tidy.sh build/tidy $(if $(RECENT),--recent)

.PHONY: install
install: build ## Installs to PREFIX (default /usr/local); DESTDIR is honoured
	@cmake --install $(BUILD) $(if $(PREFIX),--prefix $(PREFIX))

.PHONY: clean
clean: ## Removes all build folders
	@rm -rf build
