# Needs python3 (3.11 or newer) and make. Every target makes .venv when it is missing.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Two processes, because most tests use one thread; an idle process takes tests from the other.
TWO := -n 2 --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help demo test test-all mutants check bench clean

help:  ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 18

demo: $(STAMP)  ## train four models on real data; writes narrows-demo/ with pictures and a page
	$(BIN)/narrows demo --overwrite

test: $(STAMP)  ## run the tests and the examples in docstrings
	$(BIN)/python -m pytest $(TWO)

test-all: $(STAMP)  ## run all tests, slow ones too, and five fuzzers for five minutes each
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-build-isolation -e '.[dev,fuzz]'
	$(BIN)/python -m pytest -m "" $(TWO)

mutants: $(STAMP)  ## plant 106 defects and check that the tests find each
	$(BIN)/python tests/mutants.py

check: $(STAMP)  ## check lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP)  ## measure the table of README (long; others: benchmarks/README.md)
	$(BIN)/python benchmarks/reconstruction.py

clean:  ## remove caches, builds and the demo's output, but not .venv
	rm -rf dist build narrows-demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# The build backend is installed first and build isolation is off, so that the pins hold for it too.
# The stamp is touched last, so that an interrupted installation is repeated.
$(STAMP): pyproject.toml constraints.txt
	@$(call need,command -v $(PYTHON),'$(PYTHON)' was not found; install Python 3.11 or newer$(COMMA) or name one: make PYTHON=/path/to/python3)
	@$(call need,$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3$(COMMA) 11))',$$($(PYTHON) --version 2>&1) is too old; install Python 3.11 or newer$(COMMA) or name one: make PYTHON=python3.12)
	@$(call need,$(PYTHON) -c 'import venv',$(PYTHON) has no module venv; install it (Debian or Ubuntu: apt install python3-venv))
	@$(call need,$(PYTHON) -c 'import ensurepip',$(PYTHON) cannot put pip into an environment; install it (Debian or Ubuntu: apt install python3-venv))
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt hatchling editables
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-build-isolation -e '.[dev]'
	@touch $@

# $(call need,COMMAND,MESSAGE): if the command fails, print the message and stop.
COMMA := ,
need = { $(1); } >/dev/null 2>&1 || { echo "narrows: $(2)" >&2; exit 1; }
