# make demo      sets up what it needs and runs the main job on drawn photos
# make test         sets up what it needs and runs the tests that need no framework: minutes, for everybody
# make test-all     sets up TensorFlow, PyTorch and JAX too and runs all tests, the long ones in full
# make test-oldest  make test with the oldest versions that pyproject.toml admits, but for the kills at every step
# make check        ruff, types, import directions
# make mutants      counts which small changes of the code no test notices: an hour, see docs/testing.md

PYTHON ?= python3
# The CPU build where an index offers one under this name; the wheel of the default index brings CUDA along on Linux.
# `make test-all TORCH=` leaves PyTorch and its tests out.
TORCH ?= torch==2.13.0
# `make test VENV=.venv-3.13 PYTHON=python3.13` has an environment of its own.
VENV ?= .venv
BIN := $(VENV)/bin
# Neighbouring tests stay on one process, which makes what they share once, until another has nothing left to do.
XDIST := --numprocesses auto --dist worksteal
PYTEST := $(BIN)/python -m pytest $(XDIST)
QUICK := tests/unit tests/property tests/golden tests/integration
# `make test-all PASSED=1` leaves out what `make test` has just shown.
PASSED ?=

.PHONY: demo test test-all test-oldest check mutants setup clean

demo: $(VENV)/.demo
	$(BIN)/headrace demo demo

test: $(VENV)/.test
	$(PYTEST) $(QUICK)

test-all: $(VENV)/.all
	HEADRACE_TESTS=all $(PYTEST) $(if $(PASSED),-m 'exhaustive or frameworks or cluster')

test-oldest: $(VENV)/.oldest
	.venv-oldest/bin/python -m pytest $(XDIST) --ignore-glob='*_crash.py' $(QUICK)

check: $(VENV)/.all
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

mutants: $(VENV)/.all
	$(BIN)/python tests/mutants.py

setup: $(VENV)/.all

$(VENV)/.made:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "headrace needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	touch $@

$(VENV)/.demo: $(VENV)/.made pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[tensorflow-cpu]'
	touch $@

$(VENV)/.test: $(VENV)/.made pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

# PyTorch first: with it installed, nothing else pulls another build in.
$(VENV)/.all: $(VENV)/.made pyproject.toml
	$(if $(TORCH),$(BIN)/python -m pip install --quiet '$(TORCH)')
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

$(VENV)/.oldest: $(VENV)/.made pyproject.toml
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-oldest
	$(BIN)/uv pip install --quiet --python .venv-oldest --resolution lowest-direct --editable '.[test]'
	touch $@

clean:
	rm -rf .venv .venv-* demo build dist .pytest_cache .hypothesis .mypy_cache .ruff_cache .import_linter_cache
