# Everything here sets up what it needs: start with `make run` or `make test`.
# All paths are relative: this directory may have any name, blanks included.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules --no-print-directory

# PYTHON=python3.12 chooses the interpreter; PYTEST_ARGS and RUN_ARGS are passed on.
export PYTHON
PYTEST_ARGS ?=
RUN_ARGS ?=
BENCH_ARGS ?=
# How many test files run at a time: most of them wait most of the time.  `make test PYTEST_ARGS="-n 0"`: one by one.
TEST_JOBS ?= 3
FUZZ ?= 20000
GUNICORN_VERSIONS ?= 25.3.0 26.2.2 27.0.1
LOCK_ARGS ?=
py := .venv/bin/python
# Runs the suite, reaps its orphans, and fails when a process is left behind.
pytest := $(py) -m tests.support.reaper $(py) -m pytest
side_by_side := -n $(TEST_JOBS) --dist loadfile --no-loadscope-reorder

.PHONY: help setup tools run test test-fast chaos lossless fuzz systemd-257 conformance coverage-core lint format bench gunicorn-versions test-matrix lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

setup: ## .venv with everything of the lock file (the others do this by themselves)
	@scripts/setup-venv

tools: setup
	@scripts/ensure-tools

run: setup ## the sample shop under the daemon: gunicorn, Celery, beat, Redis; Ctrl-C ends it
	@exec $(py) sample_app/run.py $(RUN_ARGS)

test: tools ## the whole test suite
	@$(pytest) $(side_by_side) $(PYTEST_ARGS)

test-fast: setup ## the tests that start no long-lived process: seconds
	@$(pytest) -m "not real and not e2e and not slow" $(PYTEST_ARGS)

chaos: setup ## every fault in its full dose, about half an hour; the table goes to docs/crash-only.md
	@rm -f .chaos.jsonl
	@SUPERVISOR_D_DOSE=full SUPERVISOR_D_RESULTS=$(CURDIR)/.chaos.jsonl $(pytest) tests/faults tests/systemd/test_life.py $(PYTEST_ARGS)
	@$(py) -m tests.support.report .chaos.jsonl docs/crash-only.md

lossless: setup ## every action under load in its full dose, about an hour; the table goes to docs/lossless.md
	@rm -f .lossless.jsonl
	@code=0; \
	SUPERVISOR_D_DOSE=full SUPERVISOR_D_RESULTS=$(CURDIR)/.lossless.jsonl $(pytest) tests/lossless $(PYTEST_ARGS) || code=$$?; \
	$(py) -m tests.support.report .lossless.jsonl docs/lossless.md; \
	exit $$code

fuzz: setup ## 20,000 new examples of the simulated world, about ten minutes; FUZZ=1000 for another number
	@SUPERVISOR_D_SIM_EXAMPLES=$(FUZZ) $(pytest) tests/sim/test_machine.py $(PYTEST_ARGS)

systemd-257: setup ## tests/systemd in a root of Debian 13 instead of this machine's (made once, in ~/.cache; root only)
	@root=$$(scripts/ensure-debian-root trixie) && SUPERVISOR_D_BOX_ROOT="$$root" $(pytest) tests/systemd $(PYTEST_ARGS)

conformance: setup ## the Celery agent's tests beside the newest Celery 5.6 and 5.7, in environments of their own
	@scripts/conformance $(PYTEST_ARGS)

coverage-core: setup ## the pure tests alone must cover every branch of the core
	@$(pytest) -q tests/core --cov=supervisor_d/core --cov-branch --cov-report=
	@$(py) -m coverage report --include='supervisor_d/core/*' --fail-under=100

lint: setup ## ruff, mypy and the layers
	@$(py) -m ruff check
	@$(py) -m ruff format --check
	@$(py) -m mypy
	@$(py) -m mypy --config-file sample_app/mypy.ini
	@.venv/bin/lint-imports --no-cache

format: setup ## put the code into its form
	@$(py) -m ruff check --fix
	@$(py) -m ruff format

bench: setup ## the benchmarks, against the floor; BENCH_ARGS=FILE.md writes the table too
	@$(py) -m benchmarks.run $(BENCH_ARGS)

gunicorn-versions: setup ## the agent and the driver on older versions of gunicorn, each in a virtual environment that is thrown away
	@for version in $(GUNICORN_VERSIONS); do \
	    echo "gunicorn $$version"; \
	    venv="$$(mktemp -d)"; trap 'rm -rf "$$venv"' EXIT; \
	    $(py) -m venv "$$venv"; \
	    "$$venv/bin/python" -m pip install --quiet --disable-pip-version-check "gunicorn[gevent]==$$version" packaging; \
	    SUPERVISOR_D_GUNICORN_PYTHON="$$venv/bin/python" $(pytest) -q tests/agents/test_gunicorn_agent.py \
	        tests/agents/test_gunicorn_orphans.py tests/drivers/test_gunicorn_care.py $(PYTEST_ARGS); \
	    rm -rf "$$venv"; \
	done

test-matrix: setup ## the whole suite under Python 3.12 and 3.13 too, where they are installed
	@for version in 3.12 3.13; do \
	    if ! command -v python$$version >/dev/null; then echo "python$$version is not installed: left out"; continue; fi; \
	    VENV=.venv-$$version PYTHON=python$$version scripts/setup-venv; \
	    VENV=.venv-$$version scripts/ensure-tools; \
	    python=.venv-$$version/bin/python; \
	    $$python -m tests.support.reaper $$python -m pytest $(side_by_side) $(PYTEST_ARGS); \
	done

lock: setup ## renew requirements/dev.lock from pyproject.toml (`make lock LOCK_ARGS=--upgrade` for newer versions)
	@CUSTOM_COMPILE_COMMAND="make lock" .venv/bin/python -m piptools compile --quiet --all-extras --no-strip-extras \
	    --allow-unsafe --generate-hashes --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
	    --output-file requirements/dev.lock $(LOCK_ARGS) pyproject.toml

clean: ## remove virtual environments and caches (the sample's data in .run stays)
	@rm -rf .venv .venv.lock .venv-* .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist .coverage*
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
