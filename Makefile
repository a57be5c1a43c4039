# The two commands of the README, and what a contributor needs. `make help` lists them.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CORES ?= $(shell nproc)
# A change of the pins or of the package's metadata installs again.
INSTALLED := $(VENV)/.installed

.PHONY: help install reproduce estimate test test-all test-slurm lint format lock audit clean
.DEFAULT_GOAL := help

help: ## List the targets
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

install: $(INSTALLED) ## Make .venv with the pinned dependencies and the package

$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; call make PYTHON=python3.12, say." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null \
		|| { echo "Python's venv module is missing; on Debian: apt-get install python3-venv." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --requirement requirements.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

reproduce: $(INSTALLED) ## Run the default study; the report is results/report/index.html
	PATH="$(CURDIR)/$(BIN):$$PATH" snakemake --cores $(CORES)
	@echo "The report is results/report/index.html."

estimate: $(INSTALLED) ## Tell jobs, masks, time and disk of CONFIG=my.yaml before it runs
	@$(BIN)/s2txai estimate $(CONFIG)

lint: $(INSTALLED) ## Check style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/mypy

test: lint ## Lint, unit tests and one workflow run on real speech (15 minutes on two cores)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pytest --durations=10 -m "not slow and not slurm"

test-all: test ## What `make test` runs, and then what it leaves out
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pytest --durations=10 -m slow

test-slurm: $(INSTALLED) ## Submit jobs to a SLURM of this machine (root, slurm-wlm and munge needed)
	$(BIN)/pip install --quiet --no-build-isolation --editable ".[slurm]"
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pytest --durations=10 -m slurm

format: $(INSTALLED) ## Format the code
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/snakefmt Snakefile workflow

lock: $(INSTALLED) ## Pin again what the dependencies of pyproject.toml need
	$(BIN)/uv pip compile --universal --python-version 3.11 --extra dev --no-annotate --no-header \
		pyproject.toml --output-file requirements.lock

# --strict: a package that the service does not know is no package without vulnerabilities.
audit: $(INSTALLED) ## Look up known vulnerabilities of the pinned dependencies (needs pypi.org)
	@$(BIN)/pip-audit --strict --disable-pip --no-deps --requirement requirements.lock || { echo \
		"Not all of requirements.lock is known to be free of vulnerabilities: either some are listed" \
		"above, or PyPI's advisories (https://pypi.org) could not be had; then try again with a" \
		"network that reaches them." >&2; exit 1; }

clean: ## Remove the environment; results stay
	rm -rf $(VENV)
