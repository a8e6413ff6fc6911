# On a fresh machine with Python 3.11 and make: `make demo` and `make test` do all the set-up.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
export TF_CPP_MIN_LOG_LEVEL ?= 3
export CUDA_VISIBLE_DEVICES ?=

.PHONY: help demo test check quick bench evidence table clean

help:  ## the targets
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

demo: .venv/lab  ## compare losses on real data and write a report
	$(BIN)/lossary compare digits --losses cross_entropy,squared_error,categorical_hinge --seeds 5

test: .venv/dev .venv/triton .venv/browser  ## every test
	$(BIN)/python -m pytest -n 2

check: .venv/dev  ## format, lint, types and quick tests: what pre-commit runs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(MAKE) quick

quick: .venv/dev  ## every loss on NumPy, contracts and layout: about three minutes
	$(BIN)/python -m pytest -q -x --library numpy -n 2 tests/test_losses.py \
		tests/test_contract.py tests/test_architecture.py tests/test_repository.py

bench: .venv/dev  ## speed and memory beside the peers, in one run
	$(BIN)/python -m benchmarks

evidence: .venv/dev  ## what papers report, re-run in miniature
	$(BIN)/python -m lossary.lab.evidence

table: .venv/dev  ## the doctor's checks: caught and quiet
	$(BIN)/python -m lossary.doctor.table

.venv/bin/python:
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Lossary needs Python 3.11 or newer"'
	$(PYTHON) -m venv .venv

# torch first and pinned: a range would take the newest build, with gigabytes of CUDA libraries.
.venv/torch: .venv/bin/python constraints.txt
	$(PIP) torch==2.13.0
	@touch $@

.venv/lab: .venv/torch pyproject.toml
	$(PIP) -e '.[lab]'
	@touch $@

.venv/dev: .venv/torch pyproject.toml
	$(PIP) -e '.[dev]'
	@touch $@ .venv/lab

# Apart from the rest: torch.compile imports Triton wherever it finds it, and in one process with
# TensorFlow Triton aborts.
.venv/triton: .venv/torch constraints.txt
	$(PIP) --no-deps --upgrade --target $@ triton
	@touch $@

# The report is tested in a real browser.
.venv/browser: .venv/bin/python
	command -v chromium >/dev/null || (apt-get update -qq && apt-get install -y -qq chromium)
	@touch $@

clean:  ## remove the environment and what was made in it
	rm -rf .venv lossary-report
