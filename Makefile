# make demo          two ends on this machine: traffic through the tunnel, one worker killed
# make check         all tests, in under ten minutes once the dependencies are built
# make check-vm      the unit and the SELinux policy in a virtual machine; Debian, minutes
# make check-long    all recorded cases by command line and by file, ten thousand seeds of the simulation, a thousand kills of workers under
#                    traffic (ten minutes), a flood of handshakes, the proofs of docs/model (with ProVerif), then fuzzing (with
#                    cargo-fuzz, FUZZ_SECONDS for each target)
# make bench         throughput and latency compared with other tunnels: tables and a figure in docs/BENCHMARKS.md (BENCH=OPTIONS)
# make bench-paths   cost of silent cuts, loss, jitter, a smaller path MTU and dropped runs: a table and a figure in docs/BENCHMARKS.md
#                    (BENCH_PATHS=OPTIONS); an hour and a half
# make bench-micro   cost of a frame in each step, AES compared with OpenSSL: tables in docs/BENCHMARKS.md (MICRO=OPTIONS)
# make build         the four executables, in target/release
# make install       the executables that `make build` made with the same PREFIX, the unit, documents. DESTDIR as usual. BUILT is the
#                    directory of the executables (target/release, or the one in CARGO_TARGET_DIR)
# make uninstall     removes the installed files

CARGO ?= cargo
# Directories of cargo (rustup), and of ip, which some users lack in PATH.
export PATH := $(PATH):$(HOME)/.cargo/bin:/usr/sbin:/sbin
# Network namespaces need root; empty if the caller is root.
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
AS_ROOT := --config 'target."cfg(unix)".runner = ["sudo", "--preserve-env"]'
.PHONY: build demo check check-long check-fuzz check-kills check-deps check-style check-tests check-vectors \
    check-vectors-both check-selinux check-unit check-vm
.PHONY: install uninstall

# The path of helper, worker and resolver is compiled into the supervisor.
PREFIX ?= /usr
BINDIR := $(PREFIX)/bin
LIBEXECDIR := $(PREFIX)/libexec/ethudp
DOCDIR := $(PREFIX)/share/doc/ethudp
UNITDIR := $(PREFIX)/lib/systemd/system
PATHS := $(if $(filter /usr,$(PREFIX)),,ETHUDP_BINDIR=$(BINDIR) ETHUDP_LIBEXECDIR=$(LIBEXECDIR))
# Directory of the executables to install.
RELEASE := $(or $(CARGO_TARGET_DIR),target)/release
BUILT ?= $(RELEASE)

build:
	$(PATHS) $(CARGO) build --release --workspace --exclude ethudp-stubs --locked
	@echo '$(PREFIX)' >$(RELEASE)/.prefix

# Executables without `.prefix`, which `make build` writes, are for /usr. The PREFIX of those in BUILT is not checked without `.prefix`.
.PHONY: check-built
check-built:
	@test -x $(BUILT)/ethudp || { echo "install: $(BUILT)/ethudp does not exist; run \`make build\` first," \
	    "or set BUILT to the directory of the executables" >&2; exit 1; }
	@prefix=$$(cat $(BUILT)/.prefix 2>/dev/null || echo '$(if $(filter file,$(origin BUILT)),/usr,$(PREFIX))'); \
	    test "$$prefix" = '$(PREFIX)' || { echo "install: PREFIX=$(PREFIX): $(BUILT) was built for $$prefix;" \
	    "run \`make build PREFIX=$(PREFIX)\` first, or install with PREFIX=$$prefix" >&2; exit 1; }

# The user that runs helper, worker and resolver cannot read their files, so that the kernel makes their processes untraceable at exec.
install: check-built
	install -D -m 0755 -t $(DESTDIR)$(BINDIR) $(BUILT)/ethudp
	ln -sf ethudp $(DESTDIR)$(BINDIR)/EthUDP
	install -D -m 0711 -t $(DESTDIR)$(LIBEXECDIR) $(BUILT)/ethudp-helper $(BUILT)/ethudp-worker $(BUILT)/ethudp-resolver
	install -d $(DESTDIR)$(UNITDIR)
	sed 's|/usr/bin/ethudp|$(BINDIR)/ethudp|; s|^ExecPaths=/usr |&$(PREFIX) |; s|/usr/share/doc/ethudp|$(DOCDIR)|' dist/ethudp@.service \
	    >$(DESTDIR)$(UNITDIR)/ethudp@.service
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/lib/sysusers.d dist/sysusers.d/ethudp.conf
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/lib/tmpfiles.d dist/tmpfiles.d/ethudp.conf
	install -D -m 0644 -t $(DESTDIR)$(DOCDIR) README.md CHANGELOG.md CONTRIBUTING.md SECURITY.md LICENSE-APACHE LICENSE-MIT
	install -D -m 0644 -t $(DESTDIR)$(DOCDIR)/docs docs/*.md docs/*.svg
	install -D -m 0644 -t $(DESTDIR)$(DOCDIR)/docs/decisions docs/decisions/*.md
	install -D -m 0644 -t $(DESTDIR)$(DOCDIR)/docs/model docs/model/README.md
	install -D -m 0644 -t $(DESTDIR)$(DOCDIR)/selinux selinux/README.md
	install -D -m 0644 -t $(DESTDIR)$(DOCDIR)/examples dist/examples/*.toml dist/examples/ethudp@.service.d/*

# Configuration, users and running tunnels stay.
uninstall:
	rm -f $(DESTDIR)$(BINDIR)/ethudp $(DESTDIR)$(BINDIR)/EthUDP $(DESTDIR)$(UNITDIR)/ethudp@.service
	rm -f $(DESTDIR)$(PREFIX)/lib/sysusers.d/ethudp.conf $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/ethudp.conf
	rm -rf $(DESTDIR)$(LIBEXECDIR) $(DESTDIR)$(DOCDIR)

demo:
	tests/install-deps demo
	@command -v $(firstword $(CARGO)) >/dev/null || { echo "demo: $(CARGO) not found: install Rust (https://rustup.rs), or run make demo" \
	    "as the user who has Rust, without sudo" >&2; exit 1; }
	@$(MAKE) --no-print-directory build
	@$(SUDO) demo/demo.sh $(RELEASE)

# Each part can run alone. The last line lists the tests that did not run.
check:
	@tests/parts "$(MAKE)" $@ check-deps check-style check-tests check-vectors check-selinux check-unit

check-deps:
	tests/install-deps

.PHONY: check-deps-vm
check-deps-vm:
	tests/install-deps vm

# With the tests, and as it is shipped: what the tests and the checks of fuzzing alone use is dead code.
check-style:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	$(CARGO) clippy --workspace --locked -- -D warnings

# Tests and cases at a time. Most of them wait for timers, so that several share a processor.
JOBS ?= $(shell expr 2 \* $$(nproc))

# The caller builds; only the test executables run through sudo. Tests against EthUDP need ETHUDP_REFERENCE, the path of an executable of its
# newest source, or ETHUDP_REFERENCE_RELEASE, the path of release v20230202, or both.
check-tests:
	$(CARGO) build --workspace --locked
	RUST_TEST_THREADS=$(JOBS) $(CARGO) test --workspace --locked $(if $(SUDO),$(AS_ROOT)) $(if $(ETHUDP_REFERENCE)$(ETHUDP_REFERENCE_RELEASE),-- --include-ignored)

REPLAY = $(SUDO) /usr/bin/python3 tests/vectors/replay -j $(JOBS) $(or $(CARGO_TARGET_DIR),target)/debug/ethudp tests/vectors/classic.jsonl \
    tests/vectors/bugs.jsonl --deviations tests/vectors/deviations.json

# All cases with their classic command line, and a tenth of them with the file that `ethudp convert` prints.
check-vectors:
	$(CARGO) build --workspace --locked
	$(REPLAY)
	$(REPLAY) --by-file --every 10

check-vectors-both:
	$(CARGO) build --workspace --locked
	$(REPLAY)
	$(REPLAY) --by-file

check-selinux:
	$(MAKE) -C selinux check

# Exposure of the unit as systemd-analyze computes it, without starting the unit: at most 2.1.
check-unit:
	@command -v systemd-analyze >/dev/null || { echo "NOT RUN: check-unit: systemd-analyze is not installed"; exit 0; }; \
	    text=$$(systemd-analyze security --offline=yes --no-pager --threshold=21 dist/ethudp@.service); \
	    status=$$?; echo "$$text" | tail -n 1; exit $$status

# CHECKS selects checks: CHECKS="10-start 30-recovery". The default is all.
check-vm:
	@tests/parts "$(MAKE)" $@ check-deps-vm check-selinux check-guest

.PHONY: check-guest
check-guest:
	$(CARGO) build --workspace --locked
	$(SUDO) env BUILT=$(or $(CARGO_TARGET_DIR),target)/debug tests/vm/run $(CHECKS)

.PHONY: bench
bench: check-deps
	$(CARGO) build --release --workspace --exclude ethudp-stubs --locked
	$(SUDO) env ETHUDP_REFERENCE=$$ETHUDP_REFERENCE benches/bench $(RELEASE)/ethudp --write docs $(BENCH)

.PHONY: bench-paths
bench-paths: check-deps
	$(CARGO) build --release --workspace --exclude ethudp-stubs --locked
	$(SUDO) env ETHUDP_REFERENCE=$$ETHUDP_REFERENCE python3 benches/paths $(RELEASE)/ethudp --write docs $(BENCH_PATHS)

.PHONY: bench-micro
bench-micro:
	tests/install-deps micro
	CARGO="$(CARGO)" benches/micro/run --write docs $(MICRO)

# Minutes to an hour.
check-long:
	@tests/parts "$(MAKE)" $@ check-vectors-both check-simulation check-kills check-flood check-micro check-deny check-miri check-model \
	    check-fuzz

# Builds the benchmarks and runs each once.
.PHONY: check-micro
check-micro:
	tests/install-deps micro
	$(CARGO) bench --locked --manifest-path benches/micro/Cargo.toml -- --test

# Licenses, bans, sources; advisories if their database can be fetched.
.PHONY: check-deny check-miri
check-deny:
	@command -v cargo-deny >/dev/null || { echo "NOT RUN: check-deny: cargo-deny is not installed, cargo install cargo-deny"; exit 0; }; \
	    $(CARGO) deny check licenses bans sources || exit; \
	    if $(CARGO) deny fetch >/dev/null 2>&1; then $(CARGO) deny check advisories; \
	    else echo "NOT RUN: advisories of check-deny: cannot fetch their database"; fi

# The tests of privsep that need no system call that Miri lacks.
check-miri:
	@$(CARGO) +nightly miri --version >/dev/null 2>&1 || { echo "NOT RUN: check-miri: miri is not installed, rustup +nightly component add miri"; exit 0; }; \
	    MIRIFLAGS=-Zmiri-disable-isolation $(CARGO) +nightly miri test -p privsep --locked -- sys::worker::address attributes_end a_table_compiles

# Proofs of the secure wire with ProVerif: docs/model/README.md. PROVERIF is the program, RUNS selects runs. All take twenty minutes.
.PHONY: check-model
check-model:
	@test -n "$$PROVERIF" || command -v proverif >/dev/null || { echo "NOT RUN: check-model: proverif is not installed, opam install proverif, or set PROVERIF"; exit 0; }; \
	    docs/model/run $(RUNS)

SEEDS ?= 10000
.PHONY: check-simulation
check-simulation:
	ETHUDP_SEEDS=$(SEEDS) $(CARGO) test --locked -p ethudp-worker --test simulation -- --nocapture

KILLS ?= 1000
check-kills:
	$(CARGO) build --workspace --locked
	ETHUDP_KILLS=$(KILLS) $(CARGO) test --locked --test promises $(if $(SUDO),$(AS_ROOT)) -- \
	    --nocapture kills::stream_survives_worker_kills

# Seconds of each measurement.
FLOOD ?= 5
.PHONY: check-flood
check-flood:
	$(CARGO) build --workspace --locked
	ETHUDP_FLOOD=$(FLOOD) $(CARGO) test --locked --test promises $(if $(SUDO),$(AS_ROOT)) -- \
	    --nocapture --test-threads 1 secure_attacks::flood

# Seconds for each target, and the targets. RUSTC_BOOTSTRAP lets a stable compiler accept cargo-fuzz's options if there is no nightly one.
FUZZ_SECONDS ?= 600
FUZZ ?= $(basename $(notdir $(wildcard fuzz/fuzz_targets/*.rs)))
check-fuzz:
	@command -v cargo-fuzz >/dev/null || { echo "NOT RUN: check-fuzz: cargo-fuzz is not installed, cargo install cargo-fuzz"; exit 0; }; \
	if $(CARGO) +nightly --version >/dev/null 2>&1; then nightly=+nightly; else export RUSTC_BOOTSTRAP=1; fi; \
	for target in $(FUZZ); do \
	    mkdir -p fuzz/corpus/$$target && \
	    $(CARGO) $$nightly fuzz run $$target fuzz/corpus/$$target fuzz/seeds/$$target -- \
	        -max_total_time=$(FUZZ_SECONDS) -max_len=12000 -print_final_stats=1 || exit 1; \
	done
