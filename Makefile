# What one does here. `make` alone tells.
PREFIX ?= /usr/local
DESTDIR ?=
SHELL = /bin/bash
CARGO ?= cargo
.DEFAULT_GOAL := help
.PHONY: help demo test soak conformance bench lint fuzz deny build install uninstall packages clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## watch a machine without a disk boot Debian from a clone (root; minutes)
	@demo/demo.sh

test: ## install what the tests need and run all of them (root; under 20 minutes)
	@scripts/packages test
	@scripts/test

soak: ## what is tried by chance, for longer than `make test` has: kill test and fuzzers, SOAK_SECONDS=600 for each (root)
	@scripts/packages test
	BMI_KILL_STRIKES=10 BMI_KILL_SECONDS=$(or $(SOAK_SECONDS),600) $(CARGO) test --workspace --test kill
	@scripts/fuzz $(or $(SOAK_SECONDS),600)

conformance: ## libiscsi's whole suite on disks in a pool, by both ways of export (root; minutes, told as it goes)
	@scripts/packages test
	BMID_CONFORMANCE=whole $(CARGO) test -p bmid --lib -- --nocapture drivers::target::tgt::tests::suite

bench: ## how fast, as ratios against the floor measured in the same run (root)
	@scripts/packages test
	$(CARGO) bench --workspace

lint: ## formatting, clippy, shell syntax
	@scripts/packages build
	@scripts/lint

fuzz: ## every fuzz target for 30 s (FUZZ_SECONDS=n for longer)
	@scripts/packages fuzz
	@scripts/fuzz $(or $(FUZZ_SECONDS),30)

deny: ## licences, sources and advisories of all dependencies (advisories need github.com; it says if they were not checked)
	@scripts/deny

build: ## release binaries of bmid and bmictl, and what is preloaded into tgtd
	@scripts/packages build
	@. scripts/toolchain && $(CARGO) build --release --workspace --bins --lib

install: ## binaries, units, man pages, completion (DESTDIR=, PREFIX=/usr/local); run `make build` before
	@PREFIX='$(PREFIX)' DESTDIR='$(DESTDIR)' scripts/install

uninstall: ## take away what `make install` put (same DESTDIR, PREFIX); state and disks stay
	@PREFIX='$(PREFIX)' DESTDIR='$(DESTDIR)' scripts/install --remove

packages: ## install the Debian packages for running, demo and tests
	@scripts/packages demo test

clean: ## remove what was built and cached
	$(CARGO) clean
	rm -rf .cache
