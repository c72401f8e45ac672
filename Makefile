# make demo   two ends on this machine, traffic through them, one worker killed: see it run
# make check  everything that must hold, in under ten minutes once the dependencies are built
# make build  the three executables, in target/release

CARGO ?= cargo
# Root for what needs network namespaces; nothing where we are root already.
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
# Features of the recorded cases that this version has, and options that it has not.
FEATURES := plain,enc-xor,enc-aes-128,enc-aes-192,enc-aes-256,rx-invalid,limits,control,keepalive,underlay6,mode-e,mode-b
BUGS := oversize,stale-control
NOT_YET := -lz4 -p -mtu -map -m -mss -r -w -x -c -loopcheck -noloopcheck

.PHONY: build demo check check-deps check-style check-tests check-vectors check-selinux

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
	$(CARGO) test --workspace --locked $(if $(SUDO),--config 'target."cfg(unix)".runner = ["sudo", "--preserve-env"]')

check-vectors:
	$(CARGO) build --workspace --locked
	$(SUDO) /usr/bin/python3 tests/vectors/replay target/debug/ethudp tests/vectors/classic.jsonl \
	    --features $(FEATURES) $(foreach option,$(NOT_YET),--skip-option=$(option))
	$(SUDO) /usr/bin/python3 tests/vectors/replay target/debug/ethudp tests/vectors/bugs.jsonl \
	    --features $(BUGS) $(foreach option,$(NOT_YET),--skip-option=$(option))

check-selinux:
	$(MAKE) -C selinux
