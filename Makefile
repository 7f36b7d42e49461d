# The project's few commands. Each installs what it needs (Debian or Ubuntu, as root) and then does its work.
#
#   make demo    a real workspace, end to end, and everything removed afterwards
#   make serve   a server on loopback, until Ctrl-C
#   make test    every check and every test, live suites included
#   make bench   the performance table, and target/bench/bench.json
#   make soak    agents at random while everything beneath is broken on purpose: two seeds, SOAK_MINUTES (10) each
#   make power   a server and the manager of microVMs against power cuts: POWER_CUTS (2000)
#   make build   the two programs, optimised
#   make setup   what the others need: Docker, gVisor, the base image

SHELL := /bin/bash
export CARGO_TARGET_DIR ?= $(CURDIR)/target
TARGET := $(shell rustc -vV | sed -n 's/^host: //p')
BIN := $(CARGO_TARGET_DIR)/release
# What the tests run: the server unoptimised, which `cargo test` has made already and which checks itself more.
TEST_BIN := $(CARGO_TARGET_DIR)/live
# What QEMU's vsock devices are run by in tests; nothing that is shipped uses it.
VHOST_VSOCK_VERSION := 0.3.0
VHOST_VSOCK := $(CURDIR)/.cache/vhost-device-vsock-$(VHOST_VSOCK_VERSION)/bin/vhost-device-vsock

.PHONY: demo serve test bench soak soak-leak power build guest fixture test-programs setup check live fuzz clean

demo: build setup
	scripts/demo.sh $(BIN)

serve: build setup
	scripts/serve.sh $(BIN)

test: setup check live fuzz

bench: export LIVE_MICROVM := $(CURDIR)/.cache/microvm
bench: build fixture setup
	install -m 0755 $(CARGO_TARGET_DIR)/$(TARGET)/release/emergent-mcp-fixture $(BIN)/emergent-mcp-fixture
	scripts/prepare-microvm.sh $(BIN) $(LIVE_MICROVM)
	LIVE_BIN_DIR=$(BIN) cargo run --release --locked --quiet --bin bench

soak: build setup
	scripts/install-packages.sh postgresql
	LIVE_BIN_DIR=$(BIN) cargo run --release --locked --quiet --bin soak

# A short one that plants every kind of leak at the end, and fails unless each is named.
soak-leak: build setup
	scripts/install-packages.sh postgresql
	SOAK_SEED=1 SOAK_MINUTES=1 LIVE_BIN_DIR=$(BIN) cargo run --release --locked --quiet --bin soak -- --prove

# What `make check` does with fewer cuts.
power: export POWER_CUTS ?= 2000
power:
	cargo test --workspace --locked --test power

build: guest
	scripts/install-packages.sh gcc:gcc libc6-dev
	cargo build --release --locked --bin emergent
	install -m 0755 $(CARGO_TARGET_DIR)/$(TARGET)/release/emergent-guest $(BIN)/emergent-guest

# It must run in any image, even an empty one: static, and built apart so that its flags stay its own.
guest:
	scripts/install-packages.sh gcc:gcc libc6-dev
	RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked -p emergent-guest --target $(TARGET)

# The MCP server that tests and benchmarks host, static for the same reason.
fixture:
	RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked -p emergent-mcp --bin emergent-mcp-fixture --target $(TARGET)

test-programs: guest fixture
	cargo test --workspace --locked --no-run
	mkdir -p $(TEST_BIN)
	install -m 0755 $(CARGO_TARGET_DIR)/debug/emergent $(TEST_BIN)
	install -m 0755 $(addprefix $(CARGO_TARGET_DIR)/$(TARGET)/release/,emergent-guest emergent-mcp-fixture) $(TEST_BIN)

setup:
	scripts/install-engine.sh

# Formatting, lints, house rules, licences, documentation, and the tests that need no engine but a database and, as
# root, network namespaces.
check:
	scripts/install-packages.sh postgresql iproute2:ip iptables:iptables nftables:nft
	cargo xtask prepush

# The suites against real engines, with both databases.
live: export LIVE_BIN_DIR := $(TEST_BIN)
live: export LIVE_REGISTRY := $(CURDIR)/.cache/docker-registry/usr/bin/docker-registry
live: export LIVE_FIRST_GUEST := $(CURDIR)/.cache/first-guest/emergent-guest
live: export LIVE_MICROVM := $(CURDIR)/.cache/microvm
live: export LIVE_VHOST_VSOCK := $(VHOST_VSOCK)
live: test-programs setup .cache/docker-registry/usr/bin/docker-registry $(VHOST_VSOCK)
	scripts/install-packages.sh postgresql python3-venv curl:curl iproute2:ip iptables:iptables nftables:nft
	scripts/first-guest.sh $(TARGET) $(LIVE_FIRST_GUEST)
	scripts/prepare-microvm.sh $(TEST_BIN) $(LIVE_MICROVM)
	# Every case runs on both runtimes, and with the rows in both databases. Which runtime it is makes no difference to a row,
	# so each has its own.
	cargo test --workspace --locked --test live --test tools -- --test-threads=4 runsc::
	LIVE_POSTGRES=1 cargo test --workspace --locked --test live --test tools -- --test-threads=4 runc::
	cargo test --workspace --locked --test provider_docker --test servers --test mcp -- --test-threads=4
	# The official MCP clients against servers from npm and PyPI, behind the bridge.
	scripts/mcp-clients.sh
	# The conformance suite in a container is one of the cases above; here with one process for all sessions.
	scripts/mcp-conformance.sh --local-shared
	# Emulated machines: two at a time fill two cores.
	cargo test --workspace --locked --test microvm --test microvm_manager --test tools -- --test-threads=2 --skip runc:: --skip runsc::

# Unpacked rather than installed, so that no registry is left running on the host.
.cache/docker-registry/usr/bin/docker-registry:
	mkdir -p .cache/docker-registry
	cd .cache && apt-get download --quiet docker-registry && dpkg -x docker-registry_*.deb docker-registry

# In a target directory of its own, which cargo removes.
$(VHOST_VSOCK):
	scripts/install-packages.sh gcc:gcc libc6-dev
	env -u CARGO_TARGET_DIR cargo install --quiet --locked --debug --root .cache/vhost-device-vsock-$(VHOST_VSOCK_VERSION) \
		vhost-device-vsock@$(VHOST_VSOCK_VERSION)

# The OpenAPI document against the server that it describes.
fuzz: test-programs setup
	scripts/fuzz-api.sh $(TEST_BIN)

clean:
	cargo clean
