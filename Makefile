# `make test` and `make demo` each work as the first command in a fresh clone: they make a virtual
# environment in .venv, install what they need and run. Another interpreter: make test PYTHON=python3.12

PYTHON ?= python3
# More arguments for pytest: make test PYTEST_ARGS='-m "not slow" -x'
PYTEST_ARGS ?=
# make bench BENCH_ARGS=--full measures all sizes and extrapolates less
BENCH_ARGS ?=
# make table TABLE_ARGS=--quick takes four small data sets; --methods and --data name some
TABLE_ARGS ?= --jobs 2 --write
# make frames FRAMES_ARGS='--data penguins' takes one table and prints only
FRAMES_ARGS ?= --jobs 2 --write
# Tables of each kind that make torture draws
TORTURE_TABLES ?= 100
# Faults of each kind that make faults injects, and mutants that make mutate draws
FAULTS ?= 100
MUTANTS ?= 400
# make mutate MUTATE_ARGS='--seed 1' draws others than those that tests were written for
MUTATE_ARGS ?=
# Test processes. Most tests are many small computations, so each process keeps to one thread.
WORKERS ?= 2

# The extras that users install; the others are for work on the library.
EXTRAS ?= plot pandas polars

VENV := .venv
PY := $(VENV)/bin/python
PIP_INSTALL := $(PY) -m pip install --disable-pip-version-check -c constraints.txt

# Stamps: an installation is repeated only when one of the two files that describe it changes.
# All of them share one environment and one constraint on torch, so torch is downloaded once.
VENV_MADE := $(VENV)/.made
INSTALLED_TEST := $(VENV)/.installed-test
INSTALLED_DEMO := $(VENV)/.installed-demo
INSTALLED_BENCH := $(VENV)/.installed-bench
INSTALLED_DOCS := $(VENV)/.installed-docs
RECIPE := pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.PHONY: help install test lint demo bench table frames torture faults mutate coverage load soak docs gallery dist check-sdist check-extras check-oldest check-newest clean
# Two pips must not write to one environment, even under make -j.
.NOTPARALLEL:

help:  ## show this list
	@echo "Targets (each makes $(VENV) and installs what it needs, once):"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

install: $(INSTALLED_TEST)  ## install the package with its test and lint tools
	@echo "Installed in $(VENV). Activate it with: . $(VENV)/bin/activate"

test: lint  ## lint, then run the tests and the doctests
	OMP_NUM_THREADS=1 $(PY) -m pytest -n $(WORKERS) --dist loadgroup $(PYTEST_ARGS)

lint: $(INSTALLED_TEST)  ## ruff, mypy, the contract on imports and retired words
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy
	$(VENV)/bin/lint-imports --config setup.cfg --no-logo
	$(PY) .ci/words.py

demo: $(INSTALLED_DEMO)  ## run examples/demo.py
	$(PY) examples/demo.py

bench: $(INSTALLED_BENCH)  ## run benchmarks/run.py: time and error side by side
	$(PY) benchmarks/run.py $(BENCH_ARGS)

table: $(INSTALLED_BENCH)  ## run benchmarks/table.py: likelihood on real data (results are kept)
	OMP_NUM_THREADS=1 $(PY) benchmarks/table.py $(TABLE_ARGS)

frames: $(INSTALLED_BENCH)  ## run benchmarks/frames.py: ordinary tables, with dummies, counts and totals
	OMP_NUM_THREADS=1 $(PY) benchmarks/frames.py $(FRAMES_ARGS)

torture: $(INSTALLED_TEST)  ## run benchmarks/torture.py: random extreme tables against 60-digit arithmetic
	OMP_NUM_THREADS=1 $(PY) benchmarks/torture.py $(TORTURE_TABLES)

faults: $(INSTALLED_TEST)  ## run benchmarks/faults.py: interrupts, full disks, dead workers, forks
	OMP_NUM_THREADS=1 $(PY) benchmarks/faults.py $(FAULTS)

mutate: $(INSTALLED_TEST)  ## run benchmarks/mutate.py: the share of small faults that tests detect (resumable)
	test -e build/coverage || $(MAKE) coverage
	OMP_NUM_THREADS=1 $(PY) benchmarks/mutate.py $(MUTANTS) $(MUTATE_ARGS)

coverage: $(INSTALLED_TEST)  ## branch coverage of the tests, and which test runs which line, in build/
	$(PIP_INSTALL) -q 'pytest-cov>=5'
	mkdir -p build
	OMP_NUM_THREADS=1 COVERAGE_FILE=build/coverage $(PY) -m pytest -n $(WORKERS) --dist loadgroup \
	    --cov=skdiffsmooth --cov-branch --cov-context=test --cov-report=term:skip-covered --cov-fail-under=95 \
	    -o junit_duration_report=total --junitxml=build/tests.xml $(PYTEST_ARGS)

load: $(INSTALLED_TEST)  ## peak memory of calls beside their limit, and a crowd of threads and processes
	$(PY) benchmarks/memory.py
	OMP_NUM_THREADS=1 $(PY) benchmarks/faults.py 400 --kinds crowd fork_after_threads

soak: $(INSTALLED_TEST)  ## call all models from four threads for an hour; memory and answers must stay
	OMP_NUM_THREADS=1 $(PY) benchmarks/faults.py --soak 3600

docs: $(INSTALLED_DOCS)  ## build the documentation in docs/_build/html, without running the examples
	$(PY) -m sphinx -W --keep-going -D plot_gallery=0 -b html docs docs/_build/html

gallery: $(INSTALLED_DOCS)  ## run the examples, some twenty minutes, and build the documentation
	OMP_NUM_THREADS=1 $(PY) -m sphinx -W --keep-going -b html docs docs/_build/html

# The targets below use the network, and environments of their own in build/.
dist: $(INSTALLED_TEST)  ## build wheel and sdist in dist/, check them, try the wheel in a bare environment
	$(PIP_INSTALL) -q 'build>=1.2' 'twine>=6'
	rm -rf dist build
	$(PY) -m build
	$(PY) -m twine check --strict dist/*
	$(PYTHON) -m venv --clear build/bare
	build/bare/bin/python -m pip install -q -c constraints.txt dist/*.whl
	cd build && bare/bin/python ../.ci/smoke.py

check-sdist: dist  ## unpack the sdist and run its tests there
	rm -rf build/sdist && mkdir -p build/sdist
	tar xf dist/*.tar.gz -C build/sdist --strip-components 1
	cd build/sdist && OMP_NUM_THREADS=1 PYTHONPATH=. $(CURDIR)/$(PY) -m pytest -n $(WORKERS) --dist loadgroup $(PYTEST_ARGS)

check-extras: dist  ## install each extra alone in a bare environment, and try it
	for extra in $(EXTRAS); do \
	    echo "==> [$$extra]" && $(PYTHON) -m venv --clear build/extra && \
	    build/extra/bin/python -m pip install -q -c constraints.txt "$$(ls dist/*.whl)[$$extra]" && \
	    (cd build && extra/bin/python ../.ci/smoke.py $$extra) || exit 1; \
	done

check-oldest:  ## run the tests with the oldest supported dependencies
	$(PYTHON) -m venv --clear build/oldest
	build/oldest/bin/python -m pip install -q -c .ci/oldest.txt -e '.[test]'
	OMP_NUM_THREADS=1 build/oldest/bin/python -m pytest -n $(WORKERS) --dist loadgroup $(PYTEST_ARGS)

check-newest:  ## run the tests with the newest dependencies, of pre-releases too
	$(PYTHON) -m venv --clear build/newest
	build/newest/bin/python -m pip install -q --pre --upgrade --upgrade-strategy eager -e '.[test]'
	OMP_NUM_THREADS=1 build/newest/bin/python -m pytest -n $(WORKERS) --dist loadgroup $(PYTEST_ARGS)

clean:  ## remove caches and build products; .venv stays
	rm -rf build dist skdiffsmooth.egg-info
	rm -rf docs/_build docs/gallery docs/generated
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@for folder in skdiffsmooth tests examples benchmarks; do \
	    if [ -d "$$folder" ]; then \
	        find "$$folder" -type d -name __pycache__ -prune -exec rm -rf {} +; \
	    fi; \
	done
	@echo "The environment $(VENV) is kept, for torch is slow to install; remove it with: rm -rf $(VENV)"

$(VENV_MADE):
	@command -v $(PYTHON) >/dev/null 2>&1 || { \
	    echo "error: $(PYTHON) was not found; install Python 3.11 or newer, or name one:" >&2; \
	    echo "       make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "error: $(PYTHON) is `$(PYTHON) --version 2>&1`, but Python 3.11 or newer is needed; name one:" >&2; \
	    echo "       make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	    echo "error: $(PYTHON) has no venv module, which makes the environment $(VENV)." >&2; \
	    echo "       On Debian and Ubuntu: apt install python3-venv" >&2; \
	    echo "       or name another Python: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@if $(PY) -m pip --version >/dev/null 2>&1; then \
	    echo "==> using the environment in $(VENV)"; \
	else \
	    echo "==> making the environment in $(VENV) with $(PYTHON)"; \
	    $(PYTHON) -m venv $(VENV); \
	fi
	@touch $@

# $(call pip_install,extras): the package itself is editable, so a change of code needs no new install.
define pip_install
	@if ! $(PY) -c 'import torch' >/dev/null 2>&1; then \
	    echo "==> installing skdiffsmooth[$(1)] and torch in $(VENV);"; \
	    echo "    torch is large: the first time this takes some minutes"; \
	else \
	    echo "==> installing skdiffsmooth[$(1)] in $(VENV); torch is there already"; \
	fi
	$(PIP_INSTALL) -e '.[$(1)]'
	@touch $@
endef

$(INSTALLED_TEST): $(RECIPE) | $(VENV_MADE)
	$(call pip_install,test$(comma)lint)

$(INSTALLED_DEMO): $(RECIPE) | $(VENV_MADE)
	$(call pip_install,demo)

$(INSTALLED_BENCH): $(RECIPE) | $(VENV_MADE)
	$(call pip_install,bench)

$(INSTALLED_DOCS): $(RECIPE) | $(VENV_MADE)
	$(call pip_install,docs)

# A comma inside a $(call) must come from a variable.
comma := ,
