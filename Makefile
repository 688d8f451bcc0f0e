# Every target sets itself up: it needs Python >= 3.11 and make, makes the virtual environment .venv, and installs the
# versions pinned in constraints.txt. A second call installs nothing.
#
#   make study ARGS="--seeds 4"        more arguments for the study
#   make test ARGS="-k windows"        more arguments for pytest
#   make test WORKERS=0                in one process, as -s needs; by default one per core, at most 4
#   make test PYTHON=python3.12        another interpreter for a new .venv
#   make matrix ARGS="--jobs 1"        more arguments for the matrix; MATRIX_PYTHONS names more interpreters, as in PATH
#   make test PIP_FLAGS="--extra-index-url URL"   any option of pip install, here an index with a CPU-only torch

VENV := .venv
BIN := $(VENV)/bin
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt
PYTHON ?=
PIP_FLAGS ?=
ARGS ?=
WORKERS ?= auto

RECENT := import sys; sys.exit(sys.version_info < (3, 11))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help study studies test lint matrix docs look bench clean

help:
	@echo "make study   the temporal dynamics study, its quick form"
	@echo "make studies all studies, their quick form, each from the results of the earlier ones"
	@echo "make test    the tests"
	@echo "make lint    ruff, mypy and the import contracts"
	@echo "make matrix  reading under every Python and set of versions that is supported, without torch"
	@echo "make docs    the documentation site, in docs/_build/html"
	@echo "make look    opens every page of the site in Chromium, which has to be installed"
	@echo "make bench   the benchmarks"
	@echo "make clean   remove .venv, caches and builds"

study: $(VENV)/.installed-run
	@$(BIN)/python studies/temporal_dynamics/study.py --quick $(ARGS)

# In this order: later studies read the results of earlier ones.
STUDIES := temporal_dynamics longest_window relaxation tradeoff shortcut search screening which_sampler across_models fills \
  systems/painters systems/locality systems/low_rank systems/interpolants systems/spd systems/udpm systems/resfusion \
  systems/rddm systems/pndm systems/dpm_solver_v3 systems/evodiff systems/freeu systems/slim \
  systems/ptq4dm systems/tfmq systems/dtr systems/variable_size systems/daam systems/prompt_to_prompt

studies: $(VENV)/.installed-run
	@set -e; for name in $(STUDIES); do $(BIN)/python studies/$$name/study.py --quick $(ARGS); done

test: $(VENV)/.installed-test
	@$(BIN)/python -m pytest --numprocesses $(WORKERS) --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(VENV)/.installed-test
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

# Needs only the pip of the virtual environment; every combination has an environment of its own, in .matrix.
matrix: | $(BIN)/pip
	@PIP_FLAGS='$(PIP_FLAGS)' $(BIN)/python -m tests.matrix $(ARGS)

# The study of the tutorials first: the gallery and later tutorials read its results. It runs once; what single pages
# store goes before they run again, as they may have changed.
docs: $(VENV)/.installed-docs
	@cd docs/tutorials && ../../$(BIN)/python when.py
	@find docs/tutorials/results docs/reference/errors/results -mindepth 1 -maxdepth 1 ! -name when.zarr ! -name open.zarr \
	  -exec rm -rf {} + 2>/dev/null || true
	@$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet docs docs/_build/html $(ARGS)
	@$(BIN)/python docs/_ext/check_site.py docs/_build/html

look: docs $(VENV)/.installed-test
	@$(BIN)/python -m pytest --numprocesses $(WORKERS) --maxprocesses 4 -m browser tests/docs/test_site.py

bench: $(VENV)/.installed-test
	@$(BIN)/python -m pytest -m benchmark tests/benchmarks $(ARGS)

clean:
	rm -rf $(VENV) .matrix docs/_build docs/_gallery docs/reference/generated docs/tutorials/results docs/reference/errors/results build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/pip:
	@set -e; \
	found="$(PYTHON)"; \
	for candidate in python3 python3.11 python3.12 python3.13; do \
	  if [ -z "$$found" ] && "$$candidate" -c '$(RECENT)' >/dev/null 2>&1; then found="$$candidate"; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "No Python >= 3.11 among python3, python3.11, python3.12 and python3.13." \
	    "Install one, or name it: make PYTHON=/path/to/python3" >&2; exit 1; \
	fi; \
	if ! "$$found" -c '$(RECENT)'; then \
	  echo "$$found does not run, or is older than Python 3.11; causalunet needs 3.11 or later." >&2; exit 1; \
	fi; \
	echo "Making the virtual environment $(VENV) with $$("$$found" --version)"; \
	"$$found" -m venv $(VENV)

# torch goes first and alone: once there, nothing later makes pip choose another build of it. The package itself is
# built with the pinned hatchling of the environment instead of one fetched anew.
$(VENV)/.installed-run: pyproject.toml constraints.txt | $(BIN)/pip
	@echo "Installing torch (the largest part)"
	@$(PIP) torch
	@echo "Installing causalunet and what it runs on"
	@$(PIP) hatchling editables
	@$(PIP) --no-build-isolation --editable '.[run]'
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed-run
	@echo "Installing what the tests need"
	@$(PIP) --no-build-isolation --editable '.[test]'
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed-run
	@echo "Installing what the documentation needs"
	@$(PIP) --no-build-isolation --editable '.[docs]'
	@touch $@
