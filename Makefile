# make demo: one run from synthetic hands to a report. make test: lint, types and the whole suite.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXTRAS ?= dev
export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: help setup azurite colab-cli demo test test-long lint bench docs clean

help:
	@grep -E '^# make|^[a-z-]+:.*##' $(firstword $(MAKEFILE_LIST)) | sed -E 's/:.*##/ -/'

setup: $(VENV)/ready ## create .venv with everything that demo, tests and benchmarks need

# The stamp is older than a changed pin, which then installs again.
$(VENV)/ready: pyproject.toml constraints.txt
	@echo "creating $(VENV) (TensorFlow is large: some minutes the first time)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: Python 3.11 or newer is needed; this is $$($(PYTHON) --version). Try: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "error: cannot create a virtual environment. On Debian: apt-get install python3-venv" >&2; exit 1; }
	@"$(BIN)/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

# Microsoft's blob store emulator, for the azure tests; they are skipped only where Node.js is missing.
azurite: setup
	@"$(BIN)/python" tests/emulators/azurite.py "$(VENV)/azurite"

# Google's command line in its own environment; its tests are skipped only where Python 3.12 or newer is missing.
colab-cli: setup
	@"$(BIN)/python" tests/emulators/colab_cli.py "$(VENV)/colab-cli"

demo: setup ## synthetic hands, pack, run, report: under two minutes on two cores
	@"$(BIN)/python" scripts/demo.py

test: setup lint azurite colab-cli ## lint, types and the whole suite
	@"$(BIN)/python" -m pytest -n 3 --dist worksteal

test-long: setup azurite colab-cli ## tests that take minutes: Colab's contract, five legs, random faults, 200,000 random steps
	@"$(BIN)/python" -m pytest -n 2 --dist worksteal -m "long"
	@BONEAGE_LEDGER_STEPS=200000 "$(BIN)/python" -m pytest tests/test_ledger_properties.py

lint: setup ## style and strict types
	@"$(BIN)/ruff" check .
	@"$(BIN)/ruff" format --check .
	@"$(BIN)/mypy"
	@"$(BIN)/mypy" --python-version 3.10 -p boneage_trainer  # the trainer alone, as on older images of Azure

bench: setup ## run the benchmarks; merges into benchmarks/results.json
	@"$(BIN)/python" benchmarks/run.py

docs: setup ## regenerate docs/cli.md and the table in docs/results.md
	@"$(BIN)/python" scripts/docs.py

clean: ## remove everything that make created, the demo included
	rm -rf $(VENV) .demo build dist .pytest_cache .mypy_cache .ruff_cache
