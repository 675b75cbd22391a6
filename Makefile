# Everything starts from a fresh clone with Python 3.11+ and make; .venv and what it holds is made here.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup demo test test-slow test-all search lint bench lock clean
.DEFAULT_GOAL := setup

setup: $(STAMP)

$(STAMP): requirements/dev.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Charter needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/python examples/demo.py $(ARGS)

test: $(STAMP)
	$(BIN)/python -m pytest -n auto --dist loadfile -m "not slow"

test-slow: $(STAMP)
	$(BIN)/python -m pytest -n auto --dist loadfile -m slow

test-all: test test-slow

# The property tests on examples that were never tried: a failure prints how to have it again.
search: $(STAMP)
	CHARTER_HYPOTHESIS=search $(BIN)/python -m pytest -n auto --dist loadfile -m slow tests/guarantees/test_stateful.py tests/guarantees/test_crash.py
	CHARTER_HYPOTHESIS=search $(BIN)/python -m pytest -n auto --dist loadfile -m "not slow" tests/workflows tests/manifests tests/audit \
	  tests/policies tests/store tests/guarantees/test_stateful.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/basedpyright
	$(BIN)/lint-imports

# The competitors live in an environment of their own, so that Charter's stays what its users have.
BENCH_STAMP := .venv-bench/.installed

$(BENCH_STAMP): requirements/bench.lock
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bench.lock
	touch $(BENCH_STAMP)

bench: $(STAMP) $(BENCH_STAMP)
	$(BIN)/python -m bench $(ARGS)

# Pins every dependency with its hashes, for every platform; the file names no registry.
lock: $(STAMP)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	  --no-emit-index-url --group dev pyproject.toml -o requirements/dev.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	  --no-emit-index-url --group pyproject.toml:bench -o requirements/bench.lock

clean:
	rm -rf $(VENV) .venv-bench .charter dist build
