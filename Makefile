# Everything works on a fresh clone with nothing but Python >= 3.11 and make.

VENV := .venv
PYTHON := $(VENV)/bin/python
STAMP := $(VENV)/.installed
# looked up only when .venv has to be made
SYSTEM_PYTHON = $(firstword $(foreach p,python3 python3.13 python3.12 python3.11,$(shell $(p) -c 'import sys; print("$(p)") if sys.version_info >= (3, 11) else exit(1)' 2>/dev/null)))
# tests of processes wait more than they compute
PYTEST_WORKERS ?= 3

.PHONY: run test check demo bench chaos build setup
run: setup
	@$(VENV)/bin/pgflows dev

test: setup
	@$(PYTHON) -m pytest -n $(PYTEST_WORKERS) --dist loadgroup $(ARGS)

check: setup
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports

demo: setup
	@$(VENV)/bin/pgflows demo $(ARGS)

bench: setup
	@$(PYTHON) -m tests.bench.bench $(ARGS)

chaos: setup
	@$(PYTHON) -m tests.chaos.chaos $(ARGS)

build: setup
	@rm -rf dist
	@$(PYTHON) -m build --outdir dist

setup: $(STAMP)
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -m pip --version > /dev/null 2>&1 || { \
	  python="$(SYSTEM_PYTHON)"; \
	  test -n "$$python" || { echo "pgflows needs Python 3.11 or later on the PATH" >&2; exit 1; }; \
	  "$$python" -m venv --clear $(VENV); }
	@echo "installing into $(VENV) (once) ..."
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
