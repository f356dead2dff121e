# What a user types. Every target sets up what it needs; `make help` lists them.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Tests mostly wait for real processes; more of them at once than cores is faster.
WORKERS ?= 3

.PHONY: help setup demo test lint bench lock clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

setup: $(STAMP) ## virtual environment with the locked dependencies
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "failback needs Python 3.11 or newer; set PYTHON=..." >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

demo: setup ## the whole job against the lab; ARGS="--interactive" to give the orders yourself
	$(BIN)/failback demo $(ARGS)

test: lint ## lint, types, import rules and every test
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

lint: setup ## ruff, mypy, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup ## the engine against its peers, as ratios
	$(BIN)/python -m benchmarks $(ARGS)

lock: setup ## renew the lock file from pyproject.toml
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --extra lab --extra dev --generate-hashes --no-header --no-annotate --no-emit-index-url --python-version 3.11 -o requirements.lock

clean: ## remove what setup and the lab made
	rm -rf $(VENV) .lab .mypy_cache .ruff_cache .pytest_cache
