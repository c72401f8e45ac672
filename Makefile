# make demo   two ends on this machine, traffic through them, one worker killed: see it run
# make check  everything that must hold, in under ten minutes once the dependencies are built
# make check-long   all recorded cases both ways, a thousand kills of workers under traffic (ten minutes), then minutes
#                   of fuzzing (FUZZ_SECONDS each target); that needs cargo-fuzz and a nightly toolchain
# make build  the three executables, in target/release

CARGO ?= cargo
# Root for what needs network namespaces; nothing where we are root already.
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
AS_ROOT := --config 'target."cfg(unix)".runner = ["sudo", "--preserve-env"]'
.PHONY: build demo check check-long check-fuzz check-kills check-deps check-style check-tests check-vectors \
    check-vectors-both check-selinux

build:
	$(CARGO) build --release --workspace --locked

demo:
	demo/demo.sh

check: check-deps check-style check-tests check-vectors check-selinux

check-deps:
	tests/install-deps

check-style:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

# Built as the caller; only what cargo then runs goes through sudo.
check-tests:
	$(CARGO) build --workspace --locked
	$(CARGO) test --workspace --locked $(if $(SUDO),$(AS_ROOT))

REPLAY := $(SUDO) /usr/bin/python3 tests/vectors/replay target/debug/ethudp tests/vectors/classic.jsonl \
    tests/vectors/bugs.jsonl --deviations tests/vectors/deviations.json

# All cases by their classic command line, and a tenth by the file that convert makes of it.
check-vectors:
	$(CARGO) build --workspace --locked
	$(REPLAY)
	$(REPLAY) --by-file --every 10

check-vectors-both:
	$(CARGO) build --workspace --locked
	$(REPLAY)
	$(REPLAY) --by-file

check-selinux:
	$(MAKE) -C selinux

# Longer than anybody wants to wait for.
check-long: check-vectors-both check-kills check-fuzz

KILLS ?= 1000
check-kills:
	$(CARGO) build --workspace --locked
	ETHUDP_KILLS=$(KILLS) $(CARGO) test --locked --test promises $(if $(SUDO),$(AS_ROOT)) -- \
	    --nocapture kills::a_stream_survives_worker_after_worker

FUZZ_SECONDS ?= 600
check-fuzz:
	for target in open frame fragment text; do \
	    mkdir -p fuzz/corpus/$$target && \
	    $(CARGO) +nightly fuzz run $$target fuzz/corpus/$$target fuzz/seeds/$$target -- \
	        -max_total_time=$(FUZZ_SECONDS) -max_len=12000 -print_final_stats=1 || exit 1; \
	done
