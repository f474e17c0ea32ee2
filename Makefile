# Each target sets up .venv first; run again, it redoes only what has changed.
# For an accelerator's torch in place of the pinned CPU build:  make setup TORCH=torch
#   (takes the newest build, or the one already in .venv if it is in range).

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
PINNED_TORCH := $(shell grep '^torch==' constraints.txt)
TORCH ?= $(PINNED_TORCH)
PYTEST ?= -q -n 2 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help setup quickstart test test-fast lint bench

help:
	@echo "make quickstart   draw scenes, train on their captions, evaluate; results in runs/quickstart"
	@echo "make test         run the whole test suite"
	@echo "make test-fast    run all but the slow tests, in a minute or two"
	@echo "make lint         check format, lint and types"
	@echo "make bench        compare this CPU's speed ratios with the committed ones, in 3 minutes"
	@echo "make setup        create or update the environment in .venv"

setup: .venv/.stamp-dev

quickstart: .venv/.stamp-run
	$(BIN)/pacl quickstart

test: .venv/.stamp-dev
	$(BIN)/python -m pytest $(PYTEST)

test-fast: .venv/.stamp-dev
	$(BIN)/python -m pytest $(PYTEST) -m "not slow"

lint: .venv/.stamp-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check --no-cache .
	$(BIN)/pyright

bench: .venv/.stamp-dev
	$(BIN)/python benchmarks/guard.py

# torch comes first and alone: with it in place, nothing that follows looks for another build.
.venv/.stamp-run: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	grep -v '^torch==' constraints.txt > .venv/pins.txt
	$(PIP) -c .venv/pins.txt "$(TORCH)"
	$(PIP) -c .venv/pins.txt hatchling
	$(PIP) -c .venv/pins.txt --no-build-isolation --editable '.[plots]'
	touch $@

.venv/.stamp-dev: .venv/.stamp-run
	$(PIP) -c .venv/pins.txt --no-build-isolation --editable '.[plots,dev]'
	touch $@
