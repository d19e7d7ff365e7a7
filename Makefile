# make run     from a fresh clone to a server that answers       make test    everything that must be green
# Both set up what they lack and are quick the second time. `make help` lists the rest.

SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
BUNDLE ?= pocket
TESTS ?= tests
# Processes the tests run in; each may hold the models, up to 2 GB.
WORKERS ?= 2

# The first Python of at least 3.11; PYTHON=... on the command line overrides.
PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13 python3,$(shell \
	$(name) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(name))))

# HOST and PORT count only when given to make: shells and package managers export a HOST of their own.
given = $(if $(filter command,$(origin $(1))),--$(2) $($(1)))

.DEFAULT_GOAL := help
.PHONY: help run test lint clients clean
.DELETE_ON_ERROR:

help:
	@echo 'make run [PORT=9000] [HOST=127.0.0.1] [BUNDLE=pocket]   set up, fetch the models, serve'
	@echo 'make test [TESTS=tests/server] [WORKERS=2]              set up all tests need, then lint, types and tests'
	@echo 'make lint                                               ruff and mypy'
	@echo 'make clients                                            install the third-party clients the tests drive'
	@echo 'make clean                                              remove what these commands made here (not the models)'
	@echo 'PYTHON=python3.12 chooses the interpreter; settings of the server: docs/operations.md'

run: $(VENV)/.run
	@exec $(BIN)/vivavoce serve --bundle $(BUNDLE) $(call given,HOST,host) $(call given,PORT,port)

test: $(VENV)/.dev clients lint
	$(BIN)/vivavoce pull pocket
	@if command -v npm >/dev/null; then $(BIN)/vivavoce pull pocket-kokoro; \
	else echo 'make: npm is missing, so Kokoro, whose voices come from there, is not tested: install Node.js to do so' >&2; fi
	VIVAVOCE_REQUIRE_MODELS=1 VIVAVOCE_TEST_TIME_SCALE=3 OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadgroup $(TESTS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clients: $(VENV)/.dev
	@if command -v npm >/dev/null; then $(BIN)/python tests/clients/install.py; \
	else echo 'make: npm is missing, so tests with third-party clients are skipped: install Node.js to run them' >&2; fi

# What is installed depends on these two files and nothing else.
$(VENV)/.run: pyproject.toml constraints.txt | $(VENV)/.made
	@echo 'Installing vivavoce and what it needs into $(VENV). The largest is PyTorch: about 200 MB to fetch as its CPU build, 2 to 3 GB'
	@echo '(5 GB on disk) as the CUDA build that pip takes on Linux by default (docs/operations.md says how to choose). The models are 300 MB more.'
	$(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/.run
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $(VENV)/.run $@

$(VENV)/.made:
	@test -n '$(PYTHON)' || { echo 'make: Python 3.11 or newer is needed: install it, or name it with PYTHON=...' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

clean:
	rm -rf $(VENV) .clients build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
