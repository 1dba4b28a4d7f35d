# The two that do everything: `make run` and `make test`. `make` alone lists all of them.
.DEFAULT_GOAL := help
SHELL := /bin/bash
CARGO ?= cargo

.PHONY: help run test fuzz check bench openapi reset deny sim

help: ## list what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

run: ## build, then serve with the embedded store and a simulated Proxmox VE beside it
	@tests/bin/prepare build
	$(CARGO) run --release --locked --bin proximity -- demo $(ARGS)

test: ## run every test on both stores; installs what is missing where it may
	@tests/bin/prepare build postgres
	@tests/bin/test $(ARGS)

fuzz: ## fuzz every call of the OpenAPI document; EXAMPLES=200 cases for each, SEED=N repeats a run
	@tests/bin/prepare build python
	@$(if $(SEED),FUZZ_SEED=$(SEED)) tests/bin/fuzz $(or $(EXAMPLES),100)

check: ## formatting, lints, documentation, licences
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --locked
	$(CARGO) test --locked -p proximity-tests --test tidy

deny: ## licences, bans and advisories through cargo-deny (installs it when it is missing)
	command -v cargo-deny >/dev/null || $(CARGO) install --locked cargo-deny
	$(CARGO) deny check licenses bans sources
	$(CARGO) deny check advisories || echo "advisories: the database could not be reached or has a finding, see above"

bench: ## measure both stores beside their raw limits; prints the tables of docs/PERFORMANCE.md
	@tests/bin/prepare build postgres
	@tests/bin/bench $(ARGS)

openapi: ## write openapi.json from the handlers
	$(CARGO) run --locked --bin proximity -- openapi > openapi.json

reset: ## throw away what `make run` kept
	rm -rf .run
