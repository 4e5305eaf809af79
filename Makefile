# make demo: one training from nothing to a report. make test: everything that must hold.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXTRAS ?= dev
export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: help setup azurite colab-cli demo test test-long lint bench docs clean

help:
	@grep -E '^# make|^[a-z-]+:.*##' $(firstword $(MAKEFILE_LIST)) | sed -E 's/:.*##/ -/'

setup: $(VENV)/ready ## make .venv with all that demo, tests and benchmarks need

# The stamp names what it was made from, so a changed pin or interpreter sets up again.
$(VENV)/ready: pyproject.toml constraints.txt
	@echo "setting up $(VENV) (TensorFlow is large: some minutes the first time)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: Python 3.11 or newer is needed; this is $$($(PYTHON) --version). Try: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "error: no virtual environment could be made. On Debian: apt-get install python3-venv" >&2; exit 1; }
	@"$(BIN)/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

# Microsoft's blob store, for the tests of the azure target; they are skipped where Node.js is missing.
azurite: setup
	@"$(BIN)/python" tests/emulators/azurite.py "$(VENV)/azurite"

# Google's own command line, in an environment of its own (Python 3.12 or newer); without it its tests are skipped.
colab-cli: setup
	@"$(BIN)/python" tests/emulators/colab_cli.py "$(VENV)/colab-cli"

demo: setup ## draw, pack, train, collect, report: under two minutes on two cores
	@"$(BIN)/python" scripts/demo.py

test: setup lint azurite colab-cli ## lint, types and the whole suite
	@"$(BIN)/python" -m pytest -n 2 --dist worksteal

test-long: setup azurite colab-cli ## what takes minutes: Colab's contract, five legs, a walk with faults, 200,000 random steps
	@"$(BIN)/python" -m pytest -n 2 --dist worksteal -m "long"
	@BONEAGE_RING_STEPS=200000 "$(BIN)/python" -m pytest tests/test_rings.py

lint: setup ## style and strict types
	@"$(BIN)/ruff" check .
	@"$(BIN)/ruff" format --check .
	@"$(BIN)/mypy"

bench: setup ## measure both sides of each bar; merges into benchmarks/results.json
	@"$(BIN)/python" benchmarks/run.py

docs: setup ## write docs/cli.md from the commands and docs/results.md from the figures
	@"$(BIN)/python" scripts/docs.py

clean: ## remove what make made, demo included
	rm -rf $(VENV) .demo build dist .pytest_cache .mypy_cache .ruff_cache
