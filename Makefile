# Batchdesk: everything a fresh machine needs is Python 3.11 or later, make and the package index.
.DEFAULT_GOAL := help
.PHONY: help install demo test check bench bench-scale chaos screenshots lock
SHELL := /bin/sh

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet

help: ## Show these targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# A virtual environment moved to another path does not work: its pip says so, and it is made anew.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Batchdesk needs Python 3.11 or later; name one with PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: requirements.lock pyproject.toml | $(BIN)/python
	$(PIP) --require-hashes -r requirements.lock
	$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/installed-dev: requirements-dev.lock $(VENV)/installed
	$(PIP) --require-hashes -r requirements-dev.lock
	@touch $@

install: $(VENV)/installed ## Virtual environment with the pinned dependencies

demo: $(VENV)/installed ## Real examples against the sandbox, dashboard left up (ONCE=1: leave when done; DEMO_LIVE=1: your key)
	@$(BIN)/batchdesk demo $(if $(filter 1,$(ONCE)),--once) $(if $(filter 1,$(DEMO_LIVE)),--live)

test: $(VENV)/installed-dev ## All tests, on real parts
	@env $$(env | sed -n 's/^\(ANTHROPIC_[A-Za-z0-9_]*\)=.*/-u \1/p') $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

chaos: $(VENV)/installed-dev ## Kills and API faults at random, audited (SEED=n ROUNDS=n; SWEEP=1: each fault point once)
	@PYTHONPATH=tests:. $(BIN)/python -m chaos $(if $(SEED),--seed $(SEED)) $(if $(ROUNDS),--rounds $(ROUNDS)) \
		$(if $(filter 1,$(SWEEP)),--sweep) $(if $(ONLY),--only $(ONLY)) $(if $(HOW),--how $(HOW))

screenshots: $(VENV)/installed-dev ## A picture of every page, light and dark, wide and narrow, in screenshots/ (needs chromium)
	@SCREENSHOTS=screenshots $(BIN)/python -m pytest -q --timeout 1800 tests/browser/test_every_page.py -k axe

check: $(VENV)/installed-dev ## Format, lint, types, layers, migration drift
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layers.py tests/test_house_rules.py tests/test_migrations.py

bench: $(VENV)/installed-dev ## Figures as JSON lines, each beside its limit
	@$(BIN)/python -m bench

bench-scale: $(VENV)/installed-dev ## What each page takes at 5 million requests, as JSON lines
	@$(BIN)/python -m bench.scale

lock: ## Pin the dependencies anew (needs uv)
	uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
		--upgrade --extra build -o requirements.lock
	uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
		--upgrade --extra build --extra dev -c requirements.lock -o requirements-dev.lock
