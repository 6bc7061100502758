# The one interface: people and CI call the same targets.
#
# The environment is .venv, made from requirements/*.txt: every package pinned, with its hash. uv is used
# when it is there, else venv and pip. It is made again only when the lock file or pyproject.toml changes.
# All paths are relative, so that the folder of the checkout may have any name.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
DEMO ?= 0
VENV := .venv
PY := $(VENV)/bin/python
UV := $(shell command -v uv 2>/dev/null)
LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-header --no-emit-index-url --no-emit-find-links --upgrade
# Tests need these programs: name=package of Debian.
SYSTEM_PARTS := nginx=nginx redis-server=redis-server cc=build-essential promtool=prometheus amtool=prometheus-alertmanager \
	node=nodejs npm=npm chromium=chromium
NODE := grafana/node_modules/.stamp

.PHONY: help run test faults check bench mutants diagram rules dashboards previews lock clean system-parts

help: ## Show this
	@echo "Breaker: an async capacity gateway. Targets:"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

run: $(VENV)/.run ## Start everything here, with demonstration calls, until Ctrl-C; DEMO=20 ends by itself
	@$(PY) -m breaker up --config config --demo $(DEMO)

test: $(VENV)/.dev system-parts $(NODE) ## Run all tests; T='tests/demo -k port' runs some
	@$(PY) -m pytest -m "not drill" $(T)

faults: $(VENV)/.dev system-parts ## Kill, freeze and restart gateways and stores under load; a checker proves the promises
	@BREAKER_FULL=1 BREAKER_SEED=$${BREAKER_SEED:-$$RANDOM} $(PY) -m pytest -s tests/faults $(T)

check: $(VENV)/.dev ## Lint, format, types, import contracts
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports

bench: $(VENV)/.dev ## Measure against peers; QUICK=1 in a few minutes
	@$(PY) -m bench $(if $(QUICK),--quick)

mutants: $(VENV)/.dev ## Plant the mistakes of tests/mutants.txt, one by one; each must turn a test red
	@$(PY) -m tests.mutants

diagram: $(VENV)/.dev ## Draw the diagram of docs/circuits.md again, from the table in breaker/core/circuit.py
	@$(PY) -m tests.core.circuit_diagram

rules: $(VENV)/.dev ## Write deploy/prometheus/rules again, from the alert table and config/
	@$(PY) -m breaker rules export --config config --dir deploy/prometheus/rules

dashboards: $(VENV)/.dev ## Write grafana/dashboards/*.json again, from the Python beside them
	@$(PY) -m grafana

previews: $(VENV)/.dev $(NODE) ## Draw the dashboards without Grafana: docs/images, or OUT=dir PROMETHEUS=http://... for yours
	@$(PY) -m $(if $(PROMETHEUS),grafana.preview --prometheus $(PROMETHEUS) --out $(or $(OUT),.run/previews),tests.grafana.pictures --out $(or $(OUT),docs/images))

lock: ## Renew requirements/*.txt and grafana/package-lock.json with the newest versions (needs uv and npm)
	@command -v uv >/dev/null || { echo "make lock needs uv: https://docs.astral.sh/uv" >&2; exit 1; }
	@$(LOCK) pyproject.toml requirements/build.in --extra embedded -o requirements/run.txt
	@$(LOCK) pyproject.toml requirements/build.in --extra embedded --extra otel --extra dev -c requirements/run.txt \
		-o requirements/dev.txt
	@if grep -nE '://|^ *--(index|extra-index|find-links|trusted)|file:' requirements/run.txt requirements/dev.txt; \
	then echo "the lines above name a host or a path of this machine" >&2; exit 1; fi
	@cd grafana && npm install --package-lock-only --omit-lockfile-registry-resolved --silent --no-audit --no-fund

clean: ## Remove what was built and what was cached; the store's data in .run stays
	@rm -rf $(VENV) grafana/node_modules dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -path ./bench/.peers -prune -o -name __pycache__ -type d -print0 | xargs -0 rm -rf

# The development environment holds all that running needs, so whichever was made last serves both.
$(VENV)/.run: requirements/run.txt pyproject.toml
	@if [ -e $(VENV)/.dev ] && [ $(VENV)/.dev -nt requirements/run.txt ] && [ $(VENV)/.dev -nt pyproject.toml ]; \
	then touch $@; else $(call install,run); fi

$(VENV)/.dev: requirements/dev.txt pyproject.toml
	@$(call install,dev)
	@touch $(VENV)/.run

# What checks the dashboards and draws them; the lock file names no registry, so whichever npm is set to is asked.
$(NODE): grafana/package-lock.json | system-parts
	@echo "installing into grafana/node_modules"
	@cd grafana && npm ci --silent --no-audit --no-fund
	@touch $@

# --require-hashes and --no-build-isolation: nothing is fetched that is not in the lock file. An environment that
# was only half made has no stamp, and is made anew.
define install
command -v "$(PYTHON)" >/dev/null || { \
	echo "Python 3.11 or newer is needed, and $(PYTHON) is not there; try: make PYTHON=python3.12 ..." >&2; exit 1; }; \
"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	echo "Python 3.11 or newer is needed; found $$("$(PYTHON)" -V 2>&1); try: make PYTHON=python3.12 ..." >&2; exit 1; }; \
echo "installing into $(VENV) (requirements/$(1).txt)"; \
rm -rf $(VENV); \
if [ -n "$(UV)" ]; then \
	uv venv --quiet --python "$(PYTHON)" $(VENV); \
	VIRTUAL_ENV=$(VENV) uv pip install --quiet --require-hashes -r requirements/$(1).txt; \
	VIRTUAL_ENV=$(VENV) uv pip install --quiet --no-deps --no-build-isolation --editable .; \
else \
	"$(PYTHON)" -m venv $(VENV) || { \
		echo "$(PYTHON) cannot make an environment; on Debian: apt install python3-venv" >&2; exit 1; }; \
	$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/$(1).txt; \
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .; \
fi; \
touch $(VENV)/.$(1)
endef

# What is missing is installed where that is ours to do (root on Debian, as in CI), else named: the tests that need it fail.
# A package that brings a service must not start it: tests start their own, on ports of their own.
system-parts:
	@missing=""; \
	for part in $(SYSTEM_PARTS); do \
		PATH="$$PATH:/usr/sbin:/usr/local/sbin" command -v "$${part%%=*}" >/dev/null || missing="$$missing $${part##*=}"; \
	done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
		echo "installing what tests need:$$missing"; \
		if [ ! -e /usr/sbin/policy-rc.d ]; then \
			trap 'rm -f /usr/sbin/policy-rc.d' EXIT; \
			printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d; chmod +x /usr/sbin/policy-rc.d; \
		fi; \
		export DEBIAN_FRONTEND=noninteractive; \
		if apt-get -qq -o Acquire::Retries=3 update && apt-get -qq -y -o Acquire::Retries=3 \
			install --no-install-recommends $$missing >/dev/null; then exit 0; fi; \
	fi; \
	echo "!!! MISSING, and tests need it:$$missing (Debian: apt install$$missing)" >&2
