# Commands for people; the pre-commit hook and CI run the same targets. `make help` lists them.
.DEFAULT_GOAL := help
SHELL := /bin/bash
export PATH := $(CURDIR)/.venv/bin:$(PATH)
unexport PYTHONPATH VIRTUAL_ENV

ENV := .venv/in-date
PYTHONS := python3 python3.13 python3.12 python3.11
FITS := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))

.PHONY: help env demo test test-all faults bench check fmt lock docs clean up down

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' Makefile

env: $(ENV) ## build .venv from requirements.lock, if it is out of date

# uv comes from the lock too, checked by its hash, and installs the rest.
$(ENV): requirements.lock pyproject.toml pipeline/telemetry.py
	@PATH="$${PATH//"$(CURDIR)/.venv/bin:"/}"; hash -r; \
	for name in $(PYTHONS); do \
	  if $$name -c '$(FITS)' >/dev/null 2>&1; then python=$$(command -v $$name); break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "gliaflow: no Python 3.11 to 3.13 with venv among: $(PYTHONS). Install one (Debian: apt install python3 python3-venv) and run make again." >&2; \
	  exit 2; \
	fi; \
	echo "environment: .venv from requirements.lock, with $$($$python --version)" && \
	rm -rf .venv && $$python -m venv .venv && \
	awk '/^uv==/ {on=1} on {print} on && !/\\$$/ {exit}' requirements.lock > .venv/uv.lock && \
	.venv/bin/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r .venv/uv.lock && \
	.venv/bin/uv pip install --quiet --compile-bytecode --python .venv/bin/python --require-hashes -r requirements.lock && \
	.venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps --editable . && \
	.venv/bin/python -c 'from pipeline.telemetry import startup_line; print(startup_line())' \
	  > .venv/silent.pth && \
	mv .venv/silent.pth "$$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/zz_gliaflow_telemetry.pth" && \
	touch $@

demo: $(ENV) ## train, judge and promote a model on synthetic scans; minutes on two cores
	@gliaflow run

test: $(ENV) ## run all tests except the slow ones
	@tests/side_by_side -m "not slow"

test-all: $(ENV) ## run the slow tests too: servers, workers, kills and restarts
	@tests/side_by_side

faults: $(ENV) ## break things on purpose, with a line for each; FAULTS="--part disk" chooses
	@cd tests && PYTHONPATH=.:.. python -m faults $(FAULTS)

bench: $(ENV) ## compare speed with PyTorch and the published way; PyTorch's rows need `.venv/bin/uv pip install torch`
	@python -m bench.cpu

check: $(ENV) ## check format, lint, types, import contracts, and that lock and reference pages are up to date
	@ruff format --check --quiet . || { echo "not formatted; run \`make fmt\`" >&2; exit 1; }
	@ruff check --quiet .
	@mypy
	@lint-imports > .venv/contracts.log 2>&1 || { cat .venv/contracts.log >&2; exit 1; }
	@infra/lock --check
	@python docs/reference.py --check

fmt: $(ENV) ## format the code and fix what lint can fix
	@ruff format --quiet . && ruff check --quiet --fix .

lock: $(ENV) ## resolve requirements.lock from pyproject.toml; pins that still fit stay
	@infra/lock

docs: $(ENV) ## update the reference pages and build the site into site/, offline
	@python docs/reference.py
	@NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet

clean: ## delete data, models, reports, the registry, caches and the site, but not .venv
	@rm -rf site data/raw data/scans data/manifest.csv data/quarantine.csv data/splits.csv models reports .local mlflow.db mlruns .dvc/cache .dvc/tmp

up: $(ENV) ## start Prefect, MLflow and the watched inbox on this machine
	@gliaflow up

down: $(ENV) ## end exactly what `make up` started
	@gliaflow down
