# make demo   sets up what it needs and runs the main job on drawn photos
# make test   sets up what it needs and runs all tests
# make check  ruff, types, import directions

PYTHON ?= python3
# The CPU build where an index offers one under this name; the wheel of the default index brings CUDA along on Linux.
# `make test TORCH=` leaves PyTorch and its tests out.
TORCH ?= torch==2.13.0
BIN := .venv/bin

.PHONY: demo test check setup clean

demo: .venv/.demo
	$(BIN)/headrace demo demo

test: .venv/.test
	$(BIN)/python -m pytest

check: .venv/.test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

setup: .venv/.test

.venv/.made:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "headrace needs Python 3.11 or newer")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	touch $@

.venv/.demo: .venv/.made pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[tensorflow-cpu]'
	touch $@

# PyTorch first: with it installed, nothing else pulls another build in.
.venv/.test: .venv/.made pyproject.toml
	$(if $(TORCH),$(BIN)/python -m pip install --quiet '$(TORCH)')
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv demo build dist .pytest_cache .hypothesis .mypy_cache .ruff_cache .import_linter_cache
