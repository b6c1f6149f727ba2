# make demo      sets up what it needs and runs the main job on drawn photos
# make test         sets up what it needs and runs the tests that need no framework: minutes, for everybody
# make test-all     sets up TensorFlow, PyTorch and JAX too and runs all tests, the long ones in full
# make test-oldest  make test with the oldest versions that pyproject.toml admits
# make check        ruff, types, import directions
# make mutants      counts which small changes of the code no test notices: an hour, see docs/testing.md

PYTHON ?= python3
# The CPU build where an index offers one under this name; the wheel of the default index brings CUDA along on Linux.
# `make test-all TORCH=` leaves PyTorch and its tests out.
TORCH ?= torch==2.13.0
BIN := .venv/bin
# Neighbouring tests stay on one process, which makes what they share once, until another has nothing left to do.
XDIST := --numprocesses auto --dist worksteal
PYTEST := $(BIN)/python -m pytest $(XDIST)
QUICK := tests/unit tests/property tests/golden tests/integration
# `make test-all PASSED=1` leaves out what `make test` has just shown.
PASSED ?=

.PHONY: demo test test-all test-oldest check mutants setup clean

demo: .venv/.demo
	$(BIN)/headrace demo demo

test: .venv/.test
	$(PYTEST) $(QUICK)

test-all: .venv/.all
	HEADRACE_TESTS=all $(PYTEST) $(if $(PASSED),-m 'exhaustive or frameworks')

test-oldest: .venv/.oldest
	.venv-oldest/bin/python -m pytest $(XDIST) $(QUICK)

check: .venv/.all
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

mutants: .venv/.all
	$(BIN)/python tests/mutants.py

setup: .venv/.all

.venv/.made:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "headrace needs Python 3.11 or newer")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	touch $@

.venv/.demo: .venv/.made pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[tensorflow-cpu]'
	touch $@

.venv/.test: .venv/.made pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

# PyTorch first: with it installed, nothing else pulls another build in.
.venv/.all: .venv/.made pyproject.toml
	$(if $(TORCH),$(BIN)/python -m pip install --quiet '$(TORCH)')
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

.venv/.oldest: .venv/.made pyproject.toml
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-oldest
	$(BIN)/uv pip install --quiet --python .venv-oldest --resolution lowest-direct --editable '.[test]'
	touch $@

clean:
	rm -rf .venv .venv-oldest demo build dist .pytest_cache .hypothesis .mypy_cache .ruff_cache .import_linter_cache
