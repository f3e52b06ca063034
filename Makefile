# Two commands for a newcomer: `make demo` and `make test`. Only python3 (3.10 or newer) and make are needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
FASTREID := fastreid==1.4.0
COVERAGE_MIN ?= 90
PYTEST_ARGS ?=
DEMO_ARGS ?=
# What the stress runs tried, one line each; absolute, since tests change the folder. KEEP=1 keeps the other rows.
KEEP ?=
LEDGER ?= $(CURDIR)/logs/stress.jsonl
# Small convolutions run fastest on one thread; the tests run two processes, the demo reads images in a second one.
export OMP_NUM_THREADS ?= 1
# glibc: keep freed memory instead of giving it back after every step; no effect elsewhere.
export MALLOC_MMAP_THRESHOLD_ ?= 4294967296
export MALLOC_TRIM_THRESHOLD_ ?= 8589934592

.PHONY: help demo test check format docs bench gpu stress mutate clean
help:  ## this list
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 10

$(VENV)/.python:
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is missing: install Python 3.10 or newer, or run make PYTHON=/path/to/python"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	    { echo "Python 3.10 or newer is needed, this is `$(PYTHON) --version`: run make PYTHON=/path/to/newer/python"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

# fast-reid's own metadata pins torch 1.13.1; setup.py lists what it really imports.
$(VENV)/.installed: setup.py $(VENV)/.python
	$(BIN)/python -m pip install --quiet --editable .
	$(BIN)/python -m pip install --quiet --no-deps $(FASTREID)
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

demo: $(VENV)/.installed  ## train CIA on the embedded data, evaluate before and after, day->night and night->day
	$(BIN)/python -m dnreid_plugins demo $(DEMO_ARGS)

test: $(VENV)/.installed-dev  ## all tests except the stress tests, with line coverage
	$(BIN)/python -m pytest -n 2 --cov --cov-report=term --cov-fail-under=$(COVERAGE_MIN) $(PYTEST_ARGS)

check: $(VENV)/.installed-dev  ## style, types, import directions, sizes
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python tools/longest.py

format: $(VENV)/.installed-dev  ## apply ruff's automatic fixes
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

docs: $(VENV)/.installed-dev  ## write the pages that are made from code; `make test` compares them
	$(BIN)/python tools/make_architecture.py
	$(BIN)/python tools/make_config_list.py
	$(BIN)/python tools/make_configuration.py
	$(BIN)/python tools/make_gpu_page.py
	$(BIN)/python tools/make_hardened_table.py
	$(BIN)/python tools/make_project_table.py

bench: $(VENV)/.installed-dev  ## every benchmark side by side with fast-reid's own function
	@set -e; for file in benchmarks/bench_*.py; do echo "== $$file"; $(BIN)/python $$file; done

gpu: $(VENV)/.installed-dev  ## what only a GPU can show, in ten minutes, then docs/gpu.md; without one nothing
	$(BIN)/python tools/gpu_suite.py

stress: $(VENV)/.installed-dev  ## kill, fuzz and soak tests (half an hour), then the table of docs/reliability.md
	@mkdir -p $(dir $(LEDGER))$(if $(KEEP),, && rm -f $(LEDGER))
	status=0; DNREID_STRESS_LEDGER=$(LEDGER) $(BIN)/python -m pytest -m "stress or attack" $(PYTEST_ARGS) || status=$$?; \
	    $(BIN)/python tools/reliability_table.py $(LEDGER) $(if $(KEEP),--keep) && exit $$status

mutate: $(VENV)/.installed-dev  ## cut the wires of tests/wires.yml, change operators of losses and matchings; a test must notice each
	$(BIN)/python tools/mutate.py
	$(BIN)/python tools/mutants.py dnreid_plugins/functional/losses dnreid_plugins/functional/matching

clean:  ## remove the environment and all caches
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage*
