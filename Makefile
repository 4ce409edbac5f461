# The two commands of the README are `make demo` and `make test`. Each does its own set-up.

CARGO ?= cargo
SEEDS ?= 20000
IMAGE ?= runner-orchestrator:local
# Bases of the image where no registry is reached; empty = the Dockerfile's own.
BUILD_BASE ?=
RUNTIME_BASE ?=

# How long `make chaos` goes on, and what it repeats.
CHAOS_SECONDS ?= 1800
CHAOS_SEED ?= 1

.PHONY: demo test chaos soak lint bench image setup

demo:
	tests/setup.sh demo
	$(CARGO) run --locked --quiet -- demo --until-done

test:
	tests/setup.sh test
	$(CARGO) test --locked

# Three replicas, Docker engines and Redis under faults, for half an hour.
chaos:
	tests/setup.sh test
	CHAOS_SECONDS=$(CHAOS_SECONDS) CHAOS_SEED=$(CHAOS_SEED) \
	  $(CARGO) test --locked --test it -- it::chaos:: --nocapture

# Many more seeds of the simulation than `make test` runs.
soak:
	SEEDS=$(SEEDS) $(CARGO) test --locked --test it simulation:: -- --nocapture

lint:
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --locked --document-private-items

# One JSON line for each figure; non-zero when one is over its limit. FIGURE=name runs one.
bench:
	tests/setup.sh demo
	$(CARGO) bench --locked --bench figures -- $(FIGURE)

image:
	docker build -t $(IMAGE) -f deploy/Dockerfile \
	  --build-arg BUILD_BASE=$(BUILD_BASE) --build-arg RUNTIME_BASE=$(RUNTIME_BASE) .

# Everything that any of the targets above needs.
setup:
	tests/setup.sh test
