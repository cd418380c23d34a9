# The house's own doors. Everything else is cargo's.

PREFIX ?= /usr/local
DESTDIR ?=
SECONDS ?= 20
SEED ?= 1

# Where scripts/setup.sh puts a Rust, when the machine has none that is new enough.
export PATH := $(CURDIR)/.toolchain/bin:$(PATH)

.PHONY: help setup build test lint demo fuzz bench clean install install-dkms

help: ## this list
	@sed -n 's/^\([a-z]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

setup: ## install what is missing to build and run kspan (Debian; as root if something is)
	@scripts/setup.sh

build: setup ## target/release/kspan
	cargo build --release --package kspan

test: setup lint ## what continuous integration runs: format, lints, unit and integration tests on real kernels
	cargo build --package kspan-p2p
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

HOOKS = crates/deliver/hooks

install-dkms: install ## kspan as this system's dkms: the link, and the hooks of kernel packages
	install -d $(DESTDIR)/usr/sbin $(DESTDIR)/var/lib/dkms $(DESTDIR)/etc/dkms/framework.conf.d
	ln -sf $(PREFIX)/bin/kspan $(DESTDIR)/usr/sbin/dkms
	install -Dm755 $(HOOKS)/dkms_autoinstaller $(DESTDIR)/usr/lib/dkms/dkms_autoinstaller
	install -Dm755 $(HOOKS)/common.postinst $(DESTDIR)/usr/lib/dkms/common.postinst
	install -Dm755 $(HOOKS)/kernel-preinst $(DESTDIR)/etc/kernel/preinst.d/dkms
	install -Dm755 $(HOOKS)/kernel-postinst $(DESTDIR)/etc/kernel/postinst.d/dkms
	install -Dm755 $(HOOKS)/kernel-postinst $(DESTDIR)/etc/kernel/header_postinst.d/dkms
	install -Dm755 $(HOOKS)/kernel-prerm $(DESTDIR)/etc/kernel/prerm.d/dkms
	install -Dm755 $(HOOKS)/40-dkms.install $(DESTDIR)/usr/lib/kernel/install.d/40-dkms.install
	install -Dm644 $(HOOKS)/dkms.service $(DESTDIR)/usr/lib/systemd/system/dkms.service
