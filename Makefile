# The house's own doors. Everything else is cargo's.

PREFIX ?= /usr/local
DESTDIR ?=
SECONDS ?= 20
SEED ?= 1

.PHONY: help setup build test lint demo fuzz bench clean install

help: ## this list
	@sed -n 's/^\([a-z]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

setup: ## install what is missing to build and run kspan (Debian; as root if something is)
	@scripts/setup.sh

build: setup ## target/release/kspan
	cargo build --release --package kspan

test: setup lint ## what continuous integration runs: format, lints, unit and integration tests on real kernels
	KSPAN_CACHE="$${KSPAN_CACHE:-$${XDG_CACHE_HOME:-$$HOME/.cache}/kspan}" cargo test --workspace

lint: setup ## format and lints
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --quiet -- -D warnings

demo: build ## four kernels, a dozen drivers, the matrix
	scripts/demo.sh

fuzz: setup ## mutate inputs of every parser; SECONDS each, from SEED
	cargo xtask fuzz --seconds $(SECONDS) --seed $(SEED)

bench: setup ## the figures for speed, beside their targets
	cargo xtask bench

clean: ## remove what was built here; the cache of kernels stays
	cargo clean
	rm -rf build

install: build ## into $(DESTDIR)$(PREFIX): the program, its manual pages and completions
	install -Dm755 target/release/kspan $(DESTDIR)$(PREFIX)/bin/kspan
	install -d $(DESTDIR)$(PREFIX)/share/man/man1
	target/release/kspan man $(DESTDIR)$(PREFIX)/share/man/man1
	install -d $(DESTDIR)$(PREFIX)/share/bash-completion/completions $(DESTDIR)$(PREFIX)/share/zsh/site-functions
	target/release/kspan completions bash >$(DESTDIR)$(PREFIX)/share/bash-completion/completions/kspan
	target/release/kspan completions zsh >$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_kspan
