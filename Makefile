# Every target does its own set-up: a virtual environment in .venv, made once.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO_DIR ?= runs/demo

.DEFAULT_GOAL := help
.PHONY: help demo test lint format bench clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "dvae needs Python 3.11 or newer: make PYTHON=python3.12")'
	@echo "installing into $(VENV) (a few minutes, once)"
	@if command -v uv >/dev/null 2>&1; then \
	  uv venv --quiet --allow-existing --python $(PYTHON) $(VENV) && \
	  uv pip install --quiet --python $(BIN)/python -e '.[test]'; \
	else \
	  $(PYTHON) -m venv $(VENV) && \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'; \
	fi
	@touch $@

demo: $(READY) ## Train a small model on embedded photographs (four and a half minutes on two cores) and draw what it learned
	@$(BIN)/python -m experiments.cifar_vq --preset=demo --workdir=$(DEMO_DIR)

test: $(READY) ## Run the tests (six minutes on two cores); TFDS_DATA_DIR=... adds those on real data sets, ARGS=--thorough all cases, ARGS=--slow the long ones
	@$(BIN)/python -m pytest -q -n auto --dist worksteal $(ARGS)

lint: $(READY) ## Check style, formatting and types
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

format: $(READY) ## Format the code
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

bench: $(READY) ## Time the parts against their peers, which it installs (PyTorch; half an hour)
	@if command -v uv >/dev/null 2>&1; then \
	  uv pip install --quiet --python $(BIN)/python -e '.[bench]'; \
	else \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'; \
	fi
	@for part in run cost_curves weak_scaling; do $(BIN)/python benchmarks/$$part.py || exit 1; done

clean: ## Remove the environment, builds and caches (never the runs)
	rm -rf $(VENV) dist build *.egg-info .pytest_cache .ruff_cache .mypy_cache
	find dvae experiments tests benchmarks -name __pycache__ -type d -exec rm -rf {} +
