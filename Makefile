# Each target does its own set-up in .venv; run it again and only what changed is done.
# An accelerator's torch instead of the pinned CPU one:  make setup TORCH=torch
#   (it takes the newest build, or the one .venv already holds when that is in range).

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
PINNED_TORCH := $(shell grep '^torch==' constraints.txt)
TORCH ?= $(PINNED_TORCH)
PYTEST ?= -q -n 2 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help setup quickstart test lint

help:
	@echo "make quickstart   draw scenes, train on their captions, evaluate, write runs/quickstart"
	@echo "make test         the whole test suite"
	@echo "make lint         format check, lint, types"
	@echo "make setup        only the environment, in .venv"

setup: .venv/.stamp-dev

quickstart: .venv/.stamp-run
	$(BIN)/pacl quickstart

test: .venv/.stamp-dev
	$(BIN)/python -m pytest $(PYTEST)

lint: .venv/.stamp-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

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
