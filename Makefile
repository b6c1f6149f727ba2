# make demo      sets up what it needs and runs the main job on drawn photos
# make test      sets up what it needs and runs the tests that need no framework: minutes, for everybody
# make test-all  sets up TensorFlow, PyTorch and JAX too and runs all tests
# make check     ruff, types, import directions

PYTHON ?= python3
# The CPU build where an index offers one under this name; the wheel of the default index brings CUDA along on Linux.
# `make test-all TORCH=` leaves PyTorch and its tests out.
TORCH ?= torch==2.13.0
BIN := .venv/bin
# A file's tests stay on one process, which makes what they share once.
PYTEST := $(BIN)/python -m pytest --numprocesses auto --dist loadfile

.PHONY: demo test test-all check setup clean

demo: .venv/.demo
	$(BIN)/headrace demo demo

test: .venv/.test
	$(PYTEST) tests/unit tests/property tests/golden tests/integration

test-all: .venv/.all
	$(PYTEST)

check: .venv/.all
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

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

clean:
	rm -rf .venv demo build dist .pytest_cache .hypothesis .mypy_cache .ruff_cache .import_linter_cache
