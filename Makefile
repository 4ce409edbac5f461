# The two commands of the README are `make demo` and `make test`. Each does its own set-up.

CARGO ?= cargo
IMAGE ?= runner-orchestrator:local

.PHONY: demo test lint bench image setup

demo: setup
	$(CARGO) run --locked --quiet -- demo --until-done

test: setup
	tests/setup.sh test
	$(CARGO) test --locked

lint:
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --locked --document-private-items

# One JSON line for each figure; non-zero when one is over its limit. FIGURE=name runs one.
bench: setup
	$(CARGO) bench --locked --bench figures -- $(FIGURE)

image:
	docker build -t $(IMAGE) -f deploy/Dockerfile .

setup:
	tests/setup.sh demo
