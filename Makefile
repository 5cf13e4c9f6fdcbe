# Every target does its own set-up: a virtual environment in .venv, made once.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO_DIR ?= runs/demo

.DEFAULT_GOAL := help
.PHONY: help demo test test-lowest test-newest lint format docs bench clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z -]+:.*## / {printf "make %-24s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# INSTALL installs into .venv, the versions that the tests passed with.
define INSTALL
	if command -v uv >/dev/null 2>&1; then \
	  uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[$(1)]'; \
	else \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(1)]'; \
	fi
endef

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "dvae needs Python 3.11 or newer: make PYTHON=python3.12")'
	@echo "installing into $(VENV) (a few minutes, once)"
	@if command -v uv >/dev/null 2>&1; then \
	  uv venv --quiet --allow-existing --python $(PYTHON) $(VENV); \
	else \
	  $(PYTHON) -m venv $(VENV); \
	fi
	@$(call INSTALL,test)
	@touch $@

demo: $(READY) ## Train a small model on embedded photographs (four and a half minutes on two cores) and draw what it learned
	@$(BIN)/python -m experiments.cifar_vq --preset=demo --workdir="$(DEMO_DIR)"

test: $(READY) ## Run the tests (five minutes on two cores); TFDS_DATA_DIR=... adds those on real data sets, ARGS=--thorough all cases, ARGS=--slow the long ones
	@$(BIN)/python -m pytest -q -n auto --dist worksteal $(ARGS)

lint: $(READY) ## Check style, formatting and types
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

format: $(READY) ## Format the code
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

test-lowest: SELECTION := --resolution=lowest-direct
test-newest: SELECTION := --upgrade
test-lowest test-newest: ## Run the tests with the lowest versions that pyproject.toml allows, or the newest, in an environment of its own; ARGS=tests/train a part
	@$(PYTHON) -m venv .venv-$(@:test-%=%)
	@.venv-$(@:test-%=%)/bin/python -m pip install --quiet --disable-pip-version-check uv
	@.venv-$(@:test-%=%)/bin/uv pip install --quiet --python .venv-$(@:test-%=%)/bin/python $(SELECTION) -e '.[test]'
	@.venv-$(@:test-%=%)/bin/python -m pytest -q -n auto --dist worksteal $(ARGS)

docs: $(READY) ## Build the documentation, which needs no network, into docs/_build/html
	@$(call INSTALL,docs)
	@$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

bench: $(READY) ## Time the parts against their peers, which it installs (PyTorch; half an hour)
	@$(call INSTALL,bench)
	@for part in run cost_curves weak_scaling; do $(BIN)/python benchmarks/$$part.py || exit 1; done

clean: ## Remove the environment, builds and caches (never the runs)
	rm -rf $(VENV) .venv-lowest .venv-newest docs/_build dist build *.egg-info .pytest_cache .ruff_cache .mypy_cache
	find dvae experiments tests benchmarks -name __pycache__ -type d -exec rm -rf {} +
